"""Where groups of runs are computed: one kind of place, one file."""
