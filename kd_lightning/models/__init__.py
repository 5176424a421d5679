"""The networks that the demonstrations and the papers need."""
