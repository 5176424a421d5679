"""The run directory: checkpoints, metrics file, result, provenance."""
