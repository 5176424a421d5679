"""A finished run's student as files that other programs read, each opened again and compared before it is kept."""
