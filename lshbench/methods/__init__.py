"""Hashing methods, one a module."""
