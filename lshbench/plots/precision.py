"""Plots of precision: over recall, and over the number of results."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from lshbench.plots.style import REFERENCE, RUN, SCREEN, Medium, dress, figure_for, legend, show_shares
from lshbench.run_folder import Run

CLASSIFIER = "classifier, no code"
"""What labels give without a code: how legends call the ranking by class probabilities."""


def precision_recall(run: Run, medium: Medium = SCREEN) -> Figure:
    """Draw mean precision over recall, beside exact cosine ranking and what labels give without a code."""
    curves, name = run.curves(), run.metrics.searched
    figure = figure_for(run, "Precision over recall", medium=medium)
    axes, dashed = figure.add_subplot(), _dashed(medium)
    label = _with_figure(name, "mAP", run.metrics.metrics["mAP"])
    axes.plot(curves.recall, curves.precision, color=RUN, linewidth=medium.line, label=label, zorder=3)
    cosine = run.metrics.reference.cosine
    if cosine is not None:
        label = _with_figure("exact cosine", "mAP", cosine["mAP"])
        if curves.reference_precision is not None:
            axes.plot(curves.recall, curves.reference_precision, label=label, **dashed)
        elif cosine["mAP"] is not None:
            axes.axhline(cosine["mAP"], label=label, **dashed)
    classifier = run.metrics.reference.classifier
    if classifier is not None and curves.classifier_precision is not None:
        label = _with_figure(CLASSIFIER, "mAP", classifier.probabilities["mAP"])
        axes.plot(curves.recall, curves.classifier_precision, label=label, **dashed | {"linestyle": ":"})
    dress(axes, x="recall", y="precision, mean over queries")
    axes.set_xlim(0, 1)
    show_shares(axes, _highest(curves.precision, curves.reference_precision, curves.classifier_precision))
    legend(axes, loc="best")
    return figure


def precision_at_k(run: Run, medium: Medium = SCREEN) -> Figure:
    """Draw mean P@k over k, with the bounds that the order of ties leaves, beside the same references."""
    curves, name = run.curves(), run.metrics.searched
    figure = figure_for(run, "Precision of the first k results", medium=medium)
    axes, dashed = figure.add_subplot(), _dashed(medium)
    marker = "o" if len(curves.k) == 1 else None
    if curves.precision_at_k_bounds is not None:
        low, high = curves.precision_at_k_bounds
        if (high - low).max() > 1e-3:
            axes.fill_between(curves.k, low, high, color=RUN, alpha=0.15, linewidth=0, label="any order of ties")
    label = _with_figure(name, "P@10", run.metrics.metrics["P@10"])
    axes.plot(curves.k, curves.precision_at_k, color=RUN, linewidth=medium.line, label=label, zorder=3, marker=marker)
    cosine = run.metrics.reference.cosine
    if cosine is not None:
        label = _with_figure("exact cosine", "P@10", cosine["P@10"])
        if curves.reference_precision_at_k is not None:
            axes.plot(curves.k, curves.reference_precision_at_k, marker=marker, label=label, **dashed)
        else:
            known = [(k, cosine[f"P@{k}"]) for k in (10, 50) if cosine[f"P@{k}"] is not None]
            axes.plot(*zip(*known, strict=True), color=REFERENCE, marker="o", linestyle="--", label=label)
    classifier = run.metrics.reference.classifier
    if classifier is not None and curves.classifier_precision_at_k is not None:
        label = _with_figure(CLASSIFIER, "P@10", classifier.probabilities["P@10"])
        style = dashed | {"linestyle": ":", "marker": marker}
        axes.plot(curves.k, curves.classifier_precision_at_k, label=label, **style)
    dress(axes, x="k, length of the result list", y="P@k, mean over queries")
    axes.set_xscale("log")
    first, last = int(curves.k[0]), int(curves.k[-1])
    ticks = [k for k in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000) if first <= k <= last]
    axes.set_xticks(ticks, [f"{k:,}" for k in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(first, max(last, first + 1))
    show_shares(
        axes, _highest(curves.precision_at_k, curves.reference_precision_at_k, curves.classifier_precision_at_k)
    )
    legend(axes, loc="best")
    return figure


def _dashed(medium: Medium) -> dict[str, Any]:
    return {"color": REFERENCE, "linewidth": 0.8 * medium.line, "linestyle": "--"}


def _highest(*curves: np.ndarray | None) -> float:
    return max(float(curve.max()) for curve in curves if curve is not None)


def _with_figure(name: str, metric: str, value: float | None) -> str:
    return name if value is None or not np.isfinite(value) else f"{name}, {metric} {value:.3f}"
