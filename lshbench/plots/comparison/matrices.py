"""Plots with a row for each configuration: tests of all pairs, diagnostics of the bits, quality by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lshbench.plots.comparison.shown import MOST_ROWS, fit, group_labels, left_out, rows_height
from lshbench.plots.style import GRID, RUN, TEXT, Medium, drawing, dress, head, shortened
from lshbench.report.queries import class_quality
from lshbench.report.report import Configuration, Group, Report, measure_name
from lshbench.report.winners import SIGNIFICANT

MOST_TESTED = 16
"""Configurations in a matrix of tests: its figures need room."""


def tests(report: Report, group: Group, medium: Medium) -> Figure | None:
    """Draw the differences of all pairs by the first measure; None where no pair was tested."""
    measure = report.measures[0]
    pairs = {(pair.first, pair.second): pair for pair in group.pairs[measure]}
    shown = group.configurations[:MOST_TESTED]
    if not pairs or len(shown) < 2:
        return None
    count = len(shown)
    names = group_labels(group, shown, 36)
    label = _width(names, medium) + 0.12
    # Wide enough for a figure, and together for what stands below them.
    cell = max(4.6 * medium.tick / 72, 2.1 / count)
    width = max(medium.single, min(medium.double, label + 0.25 + count * cell))
    margins = medium.above + medium.below
    figure = drawing(medium, width, rows_height(medium, count) + margins, left=label + 0.15)
    others = left_out(len(group.configurations), MOST_TESTED)
    head(figure, f"Differences in {measure_name(measure)}", fit(figure, f"{group.title}{others}"))
    axes = figure.add_subplot()
    values = np.full((count, count), np.nan)
    for row, one in enumerate(shown):
        for column, other in enumerate(shown):
            pair, sign = pairs.get((one.name, other.name)), 1
            if pair is None:
                pair, sign = pairs.get((other.name, one.name)), -1
            if pair is None:
                continue
            values[row, column] = sign * pair.test.difference
            text = f"{values[row, column]:+.3f}".replace("0.", ".", 1) + ("*" if pair.significant else "")
            style: dict[str, Any] = {"fontsize": 0.95 * medium.tick, "color": TEXT}
            style["fontweight"] = "bold" if pair.significant else "normal"
            axes.text(column, row, text, ha="center", va="center", **style)
    largest = float(np.nanmax(np.abs(values))) or 1.0
    # Half of the colours' range keeps dark text legible on all of them.
    axes.imshow(values, cmap="PuOr_r", vmin=-2 * largest, vmax=2 * largest, aspect="auto", interpolation="nearest")
    dress(axes, x=f"row minus column; * p < {SIGNIFICANT} (Holm)", y="", grid=None)
    axes.set_yticks(range(count), [f"{number}  {name}" for number, name in enumerate(names, 1)])
    axes.set_xticks(range(count), [str(number) for number in range(1, count + 1)])
    _bare(axes)
    return figure


def diagnostics(report: Report, group: Group, medium: Medium) -> Figure | None:
    """Draw balance, correlation and entropy of the bits of each configuration; None where not two have codes."""
    shown = [one for one in group.configurations if one.codes.get("entropy_bits") is not None][:MOST_ROWS]
    if len(shown) < 2:
        return None
    panels = {
        "balance: mean |2p - 1|": [one.codes.get("bit_balance") for one in shown],
        "correlation: mean |r|": [one.codes.get("bit_correlation") for one in shown],
        "entropy, share of the bits": [_share(one) for one in shown],
    }
    names, left = _row_names(group, shown, medium)
    height = rows_height(medium, len(shown)) + medium.above + medium.below
    figure = drawing(medium, medium.double, height, left=left)
    head(figure, "Bits of the codes", fit(figure, group.title))
    grid = figure.subplots(1, len(panels), sharey=True, gridspec_kw={"wspace": 0.12})
    for axes, (label, values) in zip(grid, panels.items(), strict=True):
        places = [place for place, value in enumerate(values) if value is not None]
        there = [value for value in values if value is not None]
        axes.hlines(places, 0, there, color=GRID, linewidth=medium.line)
        axes.plot(there, places, "o", color=RUN, markersize=5 * medium.scale)
        dress(axes, x=label, y="", grid="x")
        axes.set_xlim(0, max(1.08 * max(there, default=0.0), 0.05))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.tick_params(axis="y", length=0)
    grid[0].set_yticks(range(len(shown)), names)
    grid[0].set_ylim(len(shown) - 0.4, -0.6)
    return figure


def classes(report: Report, group: Group, medium: Medium) -> Figure | None:
    """Draw the first measure by class; None where there are no two classes."""
    measure = report.measures[0]
    shown = group.configurations[:MOST_ROWS]
    quality = class_quality(shown, measure)
    if quality is None:
        return None
    rows, left = _row_names(group, shown, medium)
    names = [shortened(name, 18) for name in quality.names]
    widest = _width(names, medium)
    upright = widest * len(names) > 0.8 * (medium.double - left)
    below = 0.12 + (widest if upright else medium.tick / 72)
    height = rows_height(medium, len(rows)) + medium.above + below
    figure = drawing(medium, medium.double, height, left=left)
    figure.subplots_adjust(bottom=below / height)
    fewer = f" · {quality.left_out} classes that differ less are left out" if quality.left_out else ""
    others = left_out(len(group.configurations), MOST_ROWS)
    head(figure, f"{measure_name(measure)} by class", fit(figure, f"{group.title}{others}{fewer}"))
    axes = figure.add_subplot()
    values = np.array([quality.values[one.identity] for one in shown])
    image = axes.imshow(values, cmap="cividis", aspect="auto", interpolation="nearest")
    dress(axes, x="", y="", grid=None)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks(range(len(names)), names, rotation=90 if upright else 0)
    _bare(axes)
    bar = figure.colorbar(image, ax=axes, pad=0.015, aspect=12)
    bar.set_label(measure_name(measure), fontsize=medium.label, color=TEXT)
    bar.ax.tick_params(labelsize=medium.tick, colors=TEXT, length=2)
    return figure


def _row_names(group: Group, shown: Sequence[Configuration], medium: Medium) -> tuple[list[str], float]:
    """Return the names of the rows, and the margin that they need."""
    names = group_labels(group, shown, 40)
    return names, 0.15 + _width(names, medium)


def _width(texts: Sequence[str], medium: Medium) -> float:
    """Return about how wide the longest of some texts is, in inches."""
    return max(map(len, texts)) * 0.58 * medium.tick / 72


def _bare(axes: Axes) -> None:
    """Take away what stands around a matrix."""
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _share(one: Configuration) -> float | None:
    entropy = one.codes.get("entropy_bits")
    return None if entropy is None or not one.bits else entropy / one.bits
