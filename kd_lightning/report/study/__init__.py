"""What is true of a sweep: runs read from disk, grouped, compared."""
