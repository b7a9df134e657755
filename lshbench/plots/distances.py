"""Plot of the distances of relevant and other pairs."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lshbench.plots.style import OTHER_CLASS, SAME_CLASS, SCREEN, Medium, caption, dress, figure_for, legend
from lshbench.run_folder import Run

MOST_BINS = 80


def distances(run: Run, medium: Medium = SCREEN) -> Figure | None:
    """Draw the distances between queries and gallery items, relevant ones and others.

    None if the run did not count them.
    """
    curves = run.curves()
    edges, same, other = curves.distance_edges, curves.same_class, curves.other_class
    if edges is None or same is None or other is None or same.sum() + other.sum() == 0:
        return None
    hamming = run.metrics.ranking == "hamming"
    figure = figure_for(run, "Distances of relevant and other pairs", medium=medium, captions=True)
    axes = figure.add_subplot()
    used = np.flatnonzero(same + other)
    low, high = int(used[0]), int(used[-1]) + 1
    step = -(-(high - low) // MOST_BINS)
    for counts, name, colour in ((same, "relevant", SAME_CLASS), (other, "not relevant", OTHER_CLASS)):
        if counts.sum() == 0:
            continue
        share = counts / counts.sum()
        mean = float(share @ (edges[:-1] + edges[1:])) / 2
        starts = np.arange(low, high, step)
        ends = np.append(edges[starts], edges[min(starts[-1] + step, len(edges) - 1)])
        heights = np.add.reduceat(share[:high], starts)
        axes.stairs(heights, ends, color=colour, fill=True, alpha=0.22)
        label = f"{name}, mean {mean:.1f}" if hamming else f"{name}, mean {mean:.3f}"
        axes.stairs(heights, ends, color=colour, linewidth=1.6 * medium.scale, label=label)
        axes.axvline(mean, color=colour, linewidth=1.2 * medium.scale, linestyle=":")
    wide = f", {step} in a bar" if step > 1 else ""
    real = "asymmetric distance" if run.metrics.ranking == "asymmetric" else "1 - cosine"
    dress(axes, x=f"Hamming distance (bits{wide})" if hamming else real, y="share of the pairs")
    # Most distances of long codes never occur: the axis shows those that do.
    margin = 0.03 * (edges[high] - edges[low])
    axes.set_xlim(edges[low] - margin, edges[high] + margin)
    if hamming:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=10 if medium is SCREEN else 6, integer=True))
    if same.sum() and other.sum():
        caption(axes, f"a relevant pair is the closer one with probability {_separation(same, other):.3f}")
    columns = 2 if medium is SCREEN else 1
    axes.set_ylim(0, axes.get_ylim()[1] * (1.18 if columns == 2 else 1.3))
    legend(axes, loc="upper right", ncols=columns)
    return figure


def _separation(same: np.ndarray, other: np.ndarray) -> float:
    """Return how often a relevant pair is closer than another, ties counted half (area under the ROC)."""
    p, q = same / same.sum(), other / other.sum()
    farther = 1 - np.cumsum(q)
    return float(p @ (farther + q / 2))
