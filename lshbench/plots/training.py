"""Plot of training: loss and validation quality over epochs."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lshbench.plots.style import (
    REFERENCE,
    RUN,
    SCREEN,
    VALIDATION,
    Medium,
    dress,
    figure_for,
    legend_below,
    method_name,
)
from lshbench.run_folder import Run
from lshbench.run_folder.contents import TRAINING


def training(run: Run, medium: Medium = SCREEN) -> Figure | None:
    """Draw loss and validation quality over epochs, the chosen one marked; None for fewer than two epochs."""
    if not run.has(TRAINING):
        return None
    history = run.training()
    epochs, chosen = history["epochs"], history["chosen_epoch"]
    if len(epochs) < 2:
        return None
    figure = figure_for(run, "Training", medium=medium, name=method_name(run), right=medium.left, legend_rows=1)
    axes = figure.add_subplot()
    numbers = [epoch["epoch"] for epoch in epochs]
    style: dict[str, Any] = {"linewidth": medium.line, "marker": "o" if len(epochs) <= 30 else None}
    style["markersize"] = 4 * medium.scale
    lines = axes.plot(numbers, [epoch["loss"] for epoch in epochs], color=RUN, label="loss (left)", **style)
    dress(axes, x="epoch", y="training loss", grid="x")
    axes.yaxis.label.set_color(RUN)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10 if medium is SCREEN else 6))
    checked = [(epoch["epoch"], epoch["validation"]) for epoch in epochs if epoch["validation"] is not None]
    if checked:
        right = axes.twinx()
        style |= {"linestyle": "--", "label": "validation (right)"}
        lines += right.plot(*zip(*checked, strict=True), color=VALIDATION, **style)
        dress(right, x="", y=_validated(run), grid=None)
        right.spines["right"].set_visible(True)
        right.spines["right"].set_color("#9ca3af")
        right.yaxis.label.set_color("#a15c00")
    if chosen is not None:
        label = f"epoch {chosen} is used"
        lines.append(axes.axvline(chosen, color=REFERENCE, linewidth=1.4 * medium.scale, linestyle=":", label=label))
    legend_below(figure, lines, 3)
    return figure


def _validated(run: Run) -> str:
    """Return which measure a validation curve shows."""
    if run.metrics.method.supervision == "labels":
        return "validation mAP, same label"
    return "validation mAP, nearest neighbours"
