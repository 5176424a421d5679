"""Data that travel with the package; licence and source of each stand in README.md."""
