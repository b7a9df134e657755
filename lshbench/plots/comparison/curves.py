"""Plots of quality: measures over code lengths, and precision over recall."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from lshbench.plots.comparison.shown import (
    MOST_SERIES,
    Part,
    best_series,
    classifier_of,
    classifier_style,
    fit,
    group_labels,
    key_of,
    label_of,
    left_out,
    reference_of,
    reference_style,
    style_of,
    supervisions,
)
from lshbench.plots.style import Medium, caption, drawing, dress, head, legend_below, show_shares
from lshbench.report.report import Group, Report, measure_name
from lshbench.run_folder.contents import CURVES

LEVELS = np.linspace(0, 1, 101)


def over_bits(report: Report, part: Part, medium: Medium) -> Figure | None:
    """Draw each measure over the code length, with intervals; None where nothing has two lengths."""
    there = [one for one in part.configurations if one.bits is not None]
    lengths = sorted({one.bits for one in there if one.bits is not None})
    if len({one.series for one in there}) == len(there):
        return None
    names, others = best_series(Part(part.title, tuple(there)))
    exact = [reference_of(report, there, measure) for measure in report.measures]
    classified = [classifier_of(there, measure) for measure in report.measures]
    references = [
        (name, style, values)
        for name, style, values in (
            ("exact cosine, no code", reference_style(medium), exact),
            ("classifier, no code (labels)", classifier_style(medium), classified),
        )
        if any(value is not None for value in values)
    ]
    rows = -(-(len(names) + len(references)) // 3)
    height = medium.height + medium.legend_row * rows
    figure = drawing(medium, medium.double, height, captions=True, legend_rows=rows)
    head(figure, "Quality over code length", fit(figure, f"{part.title}{supervisions(there)}{others}"))
    panels = figure.subplots(1, len(report.measures), squeeze=False, gridspec_kw={"wspace": 0.22})[0]
    handles = []
    for place, name in enumerate(names):
        members = sorted((one for one in there if one.series == name), key=lambda one: one.bits or 0)
        style = style_of(place, members[0].supervision, medium)
        handles.append(key_of(label_of(name, members[0].supervision), style))
        for axes, measure in zip(panels, report.measures, strict=True):
            intervals = [one.means[measure].interval for one in members]
            means = [interval.mean for interval in intervals]
            spread = [[one.mean - one.low for one in intervals], [one.high - one.mean for one in intervals]]
            axes.errorbar([one.bits for one in members], means, yerr=np.maximum(spread, 0), capsize=2 * medium.scale,
                          elinewidth=0.5 * medium.line, **style)  # fmt: skip
    for place, (axes, measure) in enumerate(zip(panels, report.measures, strict=True)):
        for _, style, values in references:
            if values[place] is not None:
                axes.axhline(values[place], **style)
        axes.set_xscale("log", base=2)
        axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
        axes.xaxis.set_minor_locator(NullLocator())
        dress(axes, x="bits", y=f"mean, {report.level:.0%} interval" if place == 0 else "")
        caption(axes, measure_name(measure))
    handles += [key_of(name, style) for name, style, _ in references]
    legend_below(figure, handles, 3)
    return figure


def recall(report: Report, group: Group, medium: Medium) -> Figure | None:
    """Draw precision over recall, mean over queries and seeds; None where no run kept curves."""
    drawn = [one for one in group.configurations if all(run.has(CURVES) for run in one.runs)]
    if not drawn:
        return None
    chosen = drawn[:MOST_SERIES]
    labels = group_labels(group, chosen, 48)
    columns = 2 if max(map(len, labels)) <= 22 else 1
    rows = -(-(len(chosen) + 1) // columns)
    figure = drawing(medium, medium.single, medium.height + medium.legend_row * rows, legend_rows=rows)
    others = left_out(len(drawn), MOST_SERIES)
    head(figure, "Precision over recall", fit(figure, f"{group.title}{others}"))
    axes = figure.add_subplot()
    handles, highest, exact = [], 0.0, []
    for place, one in enumerate(chosen):
        curves = [run.curves() for run in one.runs]
        precision = np.mean([np.interp(LEVELS, curve.recall, curve.precision) for curve in curves], axis=0)
        exact += [
            np.interp(LEVELS, curve.recall, curve.reference_precision)
            for curve in curves
            if curve.reference_precision is not None
        ]
        style = style_of(place, one.supervision, medium) | {"markevery": (place % 10, 10)}
        axes.plot(LEVELS, precision, **style)
        handles.append(key_of(labels[place], style | {"markevery": None}, 48))
        highest = max(highest, float(precision.max()))
    if exact and len({one.backbone for one in chosen}) == 1:
        axes.plot(LEVELS, np.mean(exact, axis=0), **reference_style(medium))
        handles.append(key_of("exact cosine, no code", reference_style(medium)))
        highest = max(highest, float(np.mean(exact, axis=0).max()))
    dress(axes, x="recall", y="precision, mean over queries")
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_locator(FixedLocator([0, 0.2, 0.4, 0.6, 0.8, 1]))
    show_shares(axes, highest)
    legend_below(figure, handles, columns)
    return figure
