"""Data sets: where items and labels come from, one kind of source a module."""
