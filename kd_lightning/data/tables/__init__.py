"""Tables: reading them, what their columns are, how rows become numbers, which rows are training, validation and test."""
