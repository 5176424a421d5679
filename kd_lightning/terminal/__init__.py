"""What is said on a terminal: tables, progress, what is kept quiet."""
