"""Plots, each drawn from the files of a run folder."""
