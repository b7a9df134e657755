"""Data sets: the sources of items and labels, one kind of source in each module."""
