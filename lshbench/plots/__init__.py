"""Plots, each drawn from the files of a run folder."""

from __future__ import annotations

from lshbench.plots.draw import draw_all, draw_retrieval

__all__ = ["draw_all", "draw_retrieval"]
