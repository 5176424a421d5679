"""Kinds of problem: hard loss, metrics, direction, agreement with the teacher."""
