"""Groups of runs trained in lockstep, and what makes a sweep resumable."""
