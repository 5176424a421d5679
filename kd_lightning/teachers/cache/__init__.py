"""Stored teacher outputs: written once, read in the teacher's place."""
