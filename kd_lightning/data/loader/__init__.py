"""The threaded loader and its parts."""
