"""The report of a sweep, read from run directories."""
