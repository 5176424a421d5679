"""Texts: read from a table, cut into tokens, padded by batch."""
