"""Plot of training: loss and validation quality over epochs."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lshbench.plots.style import LEFT, REFERENCE, RUN, VALIDATION, dress, figure_for, method_name
from lshbench.run_folder import Run
from lshbench.run_folder.contents import TRAINING


def training(run: Run) -> Figure | None:
    """Draw loss and validation quality over epochs, the chosen one marked; None for fewer than two epochs."""
    if not run.has(TRAINING):
        return None
    history = run.training()
    epochs, chosen = history["epochs"], history["chosen_epoch"]
    if len(epochs) < 2:
        return None
    figure = figure_for(run, "Training", name=method_name(run), right=LEFT, legend_rows=1)
    axes = figure.add_subplot()
    numbers = [epoch["epoch"] for epoch in epochs]
    style: dict[str, Any] = {"linewidth": 2, "marker": "o" if len(epochs) <= 30 else None, "markersize": 4}
    lines = axes.plot(numbers, [epoch["loss"] for epoch in epochs], color=RUN, label="loss (left)", **style)
    dress(axes, x="epoch", y="training loss", grid="x")
    axes.yaxis.label.set_color(RUN)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
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
        lines.append(axes.axvline(chosen, color=REFERENCE, linewidth=1.4, linestyle=":", label=label))
    figure.legend(handles=lines, loc="lower center", ncols=3, fontsize=9, frameon=False)
    return figure


def _validated(run: Run) -> str:
    """Return which measure a validation curve shows."""
    if run.metrics.method.supervision == "labels":
        return "validation mAP, same label"
    return "validation mAP, nearest neighbours"
