"""One chart a file."""
