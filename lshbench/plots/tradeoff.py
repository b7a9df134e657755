"""What a search costs and what it finds: this run beside the exact scan."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lshbench.plots.style import REFERENCE, RUN, TEXT, dress, figure_for, show_shares
from lshbench.run_folder import Run

METRICS = (("mAP", "o"), ("P@10", "s"))


def tradeoff(run: Run) -> Figure:
    """Draw mAP and P@10 against the share of the gallery that a query is compared with."""
    search, cosine = run.metrics["search"], run.metrics["reference"]["cosine"]
    name = run.metrics["method"]["name"]
    fraction = search["candidates_fraction"]
    figure = figure_for(run, "Quality against the share of the gallery compared")
    axes = figure.add_subplot()
    runs = [(fraction, run.metrics["metrics"], RUN, fraction > 0.2)]
    if cosine is not None:
        runs.append((1.0, cosine, REFERENCE, False))
    figures = [values[metric] for _, values, _, _ in runs for metric, _ in METRICS if values[metric] is not None]
    show_shares(axes, max(figures, default=1.0))
    for x, values, colour, to_the_left in runs:
        shown = [(metric, marker) for metric, marker in METRICS if values[metric] is not None and x > 0]
        heights = _apart([values[metric] for metric, _ in shown], 0.055 * axes.get_ylim()[1])
        for (metric, marker), height in zip(shown, heights, strict=True):
            axes.plot(
                [x],
                [values[metric]],
                marker=marker,
                color=colour,
                markersize=9,
                linestyle="none",
                clip_on=False,
            )
            axes.annotate(
                f"{metric} {values[metric]:.3f}",
                (x, height),
                xytext=(-9 if to_the_left else 9, 0),
                textcoords="offset points",
                ha="right" if to_the_left else "left",
                va="center",
                fontsize=9,
                color=colour,
            )
    dress(axes, x="share of the gallery compared with a query (log scale)", y="mean over queries")
    axes.set_xscale("log")
    lowest = min(fraction, 0.1) if fraction > 0 else 0.1
    exponents = range(-8, 1)
    ticks = [10.0**e for e in exponents if 10.0**e >= lowest / 3]
    axes.set_xticks(ticks, [f"{tick * 100:g} %" for tick in ticks])
    # Room for the figures at the right of the exact scan.
    axes.set_xlim(lowest / 2, (2 / lowest) ** 0.25)
    items = f"{search['candidates_mean']:,.0f} of {run.metrics['dataset']['gallery']:,} items"
    handles = [Line2D([], [], color=RUN, marker="o", linestyle="none", label=f"{name}, {search['index']}: {items}")]
    if cosine is not None:
        handles.append(Line2D([], [], color=REFERENCE, marker="o", linestyle="none", label="exact cosine: all items"))
    figure.legend(handles=handles, loc="outside lower center", ncols=1, fontsize=9, frameon=False, labelcolor=TEXT)
    return figure


def _apart(values: list[float], gap: float) -> list[float]:
    """Return heights for one or two labels, so that they don't lie on each other."""
    if len(values) < 2 or abs(values[0] - values[1]) >= gap:
        return values
    middle, half = sum(values) / 2, gap / 2
    return [middle + half, middle - half] if values[0] >= values[1] else [middle - half, middle + half]
