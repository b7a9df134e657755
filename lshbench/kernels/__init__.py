"""Compiled loops over codes, vectors, lists and hash tables."""
