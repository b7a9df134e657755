"""Plot of where quality is lost: a waterfall from the features over the codes to the index, one a measure."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lshbench.plots.style import (
    OTHER_CLASS,
    REFERENCE,
    RUN,
    SAME_CLASS,
    SCREEN,
    TEXT,
    Medium,
    caption,
    dress,
    figure_for,
    medium_of,
)
from lshbench.run_folder import Run

MEASURES = ("mAP", "P@10", "P@50", "recall@10")
GAIN, LOSS = SAME_CLASS, OTHER_CLASS
SMALLEST = 0.0005
"""Change that is more than 0 in three digits."""


def loss(run: Run, medium: Medium = SCREEN) -> Figure | None:
    """Draw what the code and the index each add to a measure of the features, or take from it.

    None where there are no two steps to compare.
    """
    steps = run.metrics.loss
    if steps is None or (steps.features is None and steps.codes is None):
        return None
    measures = [name for name in MEASURES if steps.index[name] is not None]
    figure = figure_for(run, "Where quality is lost", medium=medium, width=medium.double, captions=True)
    grid = figure.subplots(1, len(measures), sharey=True, squeeze=False, gridspec_kw={"wspace": 0.12})[0]
    for axes, name in zip(grid, measures, strict=True):
        _draw(axes, run, name)
        dress(axes, x="", y="mean over queries" if axes is grid[0] else "", grid="y")
        axes.set_ylim(0, 1.12)
        axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
        caption(axes, "recall@10 of exact cosine" if name == "recall@10" else name)
    return figure


def _draw(axes: Axes, run: Run, name: str) -> None:
    """Draw a bar for the first step, what each later one changes hanging from it, and a bar for the results."""
    medium = medium_of(axes)
    steps = run.metrics.loss
    assert steps is not None
    first = steps.codes if steps.features is None else steps.features
    assert first is not None
    value = first[name] or 0.0
    bars: list[tuple[str, float, float, str, str]] = []
    bars.append(("codes" if steps.features is None else "exact\ncosine", 0.0, value, REFERENCE, f"{value:.3f}"))
    for part, change in steps.changes(name).items():
        if change is not None:
            text = f"{change:+.3f}".replace("0.", ".") if abs(change) >= SMALLEST else "0"
            bars.append((part, value, change, GAIN if change >= 0 else LOSS, text))
            value += change
    bars.append(("results", 0.0, value, RUN, f"{value:.3f}"))
    words: dict[str, Any] = {"ha": "center", "fontsize": medium.tick, "color": TEXT}
    for place, (_, bottom, height, colour, text) in enumerate(bars):
        level = bottom + height
        axes.bar(place, height, bottom=bottom, width=0.62, color=colour)
        # Below a loss there is room, unless it leads down to the axis.
        under = height <= -SMALLEST and level > 0.1
        axes.text(
            place,
            level - 0.015 if under else max(bottom, level) + 0.012,
            text,
            va="top" if under else "bottom",
            **words,
        )
        if place + 1 < len(bars):
            start = place + (0.31 if abs(height) >= SMALLEST else -0.31)
            axes.plot([start, place + 0.69], [level, level], color=REFERENCE, linewidth=0.8 * medium.scale)
    axes.set_xticks(range(len(bars)), [label for label, *_ in bars])
    axes.set_xlim(-0.55, len(bars) - 0.45)
