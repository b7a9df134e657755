"""Plots of what quality costs: candidates, throughput, bytes an item; and time and memory by stage."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lshbench.plots.comparison.shown import (
    MOST_ROWS,
    Part,
    best_series,
    fit,
    key_of,
    label_of,
    left_out,
    middle_out,
    reference_of,
    reference_style,
    rows_height,
    style_of,
)
from lshbench.plots.style import REFERENCE, SERIES, Medium, drawing, dress, head, legend_below
from lshbench.plots.tradeoff import log_axis, number_text, pareto_front, share_text
from lshbench.report.report import Report, measure_name

STAGES = ("load", "extract", "fit", "encode", "index", "search", "evaluate")


def cost(report: Report, part: Part, medium: Medium) -> Figure | None:
    """Draw the first measure against what a search costs, with the Pareto front and exact cosine's line.

    Costs that are the same for all are left out; None where no other is known.
    """
    costs = {
        "candidates, share of the gallery": ("candidates_fraction", True, share_text),
        "queries a second, with encoding": ("qps_with_encoding", False, number_text),
        "bytes an item": ("bytes_per_item", True, number_text),
    }
    measure = report.measures[0]
    names, others = best_series(part)
    shown = [one for one in part.configurations if one.series in names]
    panels = {}
    for label, (key, cheap, text) in costs.items():
        points = [(one, float(getattr(one.cost, key) or 0)) for one in shown]
        points = [(one, x) for one, x in points if x > 0]
        if len({x for _, x in points}) > 1:
            panels[label] = points, cheap, text
    if not panels:
        return None
    handles: list[Line2D] = []
    for place, name in enumerate(names):
        supervision = next(one.supervision for one in shown if one.series == name)
        handles.append(key_of(label_of(name, supervision), _dots(place, supervision, medium)))
    front: dict[str, Any] = {"color": REFERENCE, "linewidth": 0.5 * medium.line, "alpha": 0.8}
    handles.append(key_of("Pareto front", front))
    exact = reference_of(report, shown, measure)
    if exact is not None:
        handles.append(key_of("exact cosine, no code", reference_style(medium)))
    columns, width = (3, medium.double) if len(panels) > 1 else (1, medium.single)
    rows = -(-len(handles) // columns)
    figure = drawing(medium, width, medium.height + medium.legend_row * rows, legend_rows=rows)
    head(figure, "Quality against cost", fit(figure, f"{part.title}{others}"))
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False, gridspec_kw={"wspace": 0.08})[0]
    for column, (axes, (label, (points, cheap, text))) in enumerate(zip(grid, panels.items(), strict=True)):
        x = [value for _, value in points]
        y = [one.means[measure].interval.mean for one, _ in points]
        best = pareto_front([value if cheap else -value for value in x], y)
        axes.plot([x[i] for i in best], [y[i] for i in best], zorder=1, **front)
        for (one, _), left, up in zip(points, x, y, strict=True):
            axes.plot([left], [up], **_dots(names.index(one.series), one.supervision, medium))
        if exact is not None:
            axes.axhline(exact, **reference_style(medium))
        log_axis(axes, x, text, 1.0 if text is share_text else None, least_range=4)
        dress(axes, x=label, y=f"{measure_name(measure)}, mean" if column == 0 else "")
    legend_below(figure, handles, columns)
    return figure


def _dots(place: int, supervision: str, medium: Medium) -> dict[str, Any]:
    return style_of(place, supervision, medium) | {"linestyle": "none"}


def stages(report: Report, part: Part, medium: Medium) -> Figure | None:
    """Draw seconds by stage and the largest memory of each configuration; None where there is one alone."""
    shown = [one for one in part.configurations if any(one.time_s.get(stage) for stage in STAGES)][:MOST_ROWS]
    if len(shown) < 2:
        return None
    there = [stage for stage in STAGES if any(one.time_s.get(stage) for one in shown)]
    legend_rows = -(-len(there) // 7)
    margins = medium.above + medium.below + medium.legend_row * legend_rows
    height = rows_height(medium, len(shown)) + margins
    names = [middle_out(label_of(one.name, one.supervision), 40) for one in shown]
    left = 0.15 + max(map(len, names)) * 0.58 * medium.tick / 72
    figure = drawing(medium, medium.double, height, left=left, legend_rows=legend_rows)
    others = left_out(len(part.configurations), MOST_ROWS)
    head(figure, "Time and memory", fit(figure, f"{part.title} · mean over seeds{others}"))
    time, memory = figure.subplots(1, 2, sharey=True, width_ratios=[2, 1], gridspec_kw={"wspace": 0.07})
    places = range(len(shown))
    ends = [0.0] * len(shown)
    for place, stage in enumerate(there):
        seconds = [one.time_s.get(stage) or 0.0 for one in shown]
        time.barh(places, seconds, left=ends, height=0.7, color=_colour(place), linewidth=0)
        ends = [end + more for end, more in zip(ends, seconds, strict=True)]
    memory.barh(places, [(one.cost.peak_memory_bytes or 0) / 1e9 for one in shown], height=0.7, color=REFERENCE)
    dress(time, x="seconds", y="", grid="x")
    dress(memory, x="largest memory, GB", y="", grid="x")
    time.set_yticks(places, names)
    time.set_ylim(len(shown) - 0.4, -0.6)
    memory.tick_params(axis="y", length=0)
    legend_below(figure, [Patch(color=_colour(place), label=stage) for place, stage in enumerate(there)], 7)
    return figure


def _colour(place: int) -> str:
    return SERIES[place % len(SERIES)]
