"""Compiled loops over packed codes, features, candidate lists and hash tables.

How they are compiled, and where machine code is kept: :mod:`lshbench.kernels.compilation`.
"""
