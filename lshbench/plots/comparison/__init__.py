"""Plots of a report: configurations beside each other."""
