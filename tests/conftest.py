"""Puts this directory on the path, so that tests in all directories can import ``processes``."""
