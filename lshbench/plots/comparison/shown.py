"""What plots of a report show: which configurations, in which colours, and what is said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.lines import Line2D

from lshbench.plots.style import MARKERS, REFERENCE, SERIES, Drawing, Medium, shortened
from lshbench.report.report import Configuration, Group, Report

MOST_SERIES = 12
"""Lines of one plot: more can't be told apart."""
MOST_ROWS = 24
"""Rows of one plot that has a row for each configuration."""

LINES = {"labels": "-", "none": "--", "features": ":"}
"""How lines are drawn by what a method was trained with."""

NAMES = {"labels": "trained with labels", "none": "without labels", "features": "features alone"}


@dataclass(frozen=True)
class Part:
    """Configurations of one data set and protocol, at all code lengths.

    Attributes:
        title: the data set, its encoder, and the protocol.
        configurations: by the mean of the report's first measure, best first.
    """

    title: str
    configurations: tuple[Configuration, ...]


def parts(report: Report) -> list[Part]:
    """Return the configurations of each data set and protocol."""
    found: dict[tuple[str, str, str], list[Configuration]] = {}
    for one in report.configurations:
        found.setdefault((one.dataset, one.runs[0].metrics.dataset.fingerprint, one.protocol), []).append(one)
    several = {name for name, _, _ in found if sum(other == name for other, _, _ in found) > 1}
    made = []
    for (name, fingerprint, protocol), members in found.items():
        data = f"{name} (data {fingerprint.removeprefix('sha256:')[:8]})" if name in several else name
        members.sort(key=lambda one: -one.means[report.measures[0]].interval.mean)
        made.append(Part(f"{data}, protocol {protocol}", tuple(members)))
    return made


def best_series(part: Part) -> tuple[list[str], str]:
    """Return the series that are drawn, best first, and what to say of the others."""
    names = list(dict.fromkeys(one.series for one in part.configurations))
    return names[:MOST_SERIES], left_out(len(names), MOST_SERIES)


def left_out(count: int, most: int) -> str:
    """Return what to say where only the best are drawn."""
    return f" · the best {most} of {count}" if count > most else ""


def style_of(place: int, supervision: str, medium: Medium) -> dict[str, Any]:
    """Return how the series at a place is drawn: colour, mark, and a line by its supervision."""
    hollow = {"markerfacecolor": "white"} if supervision != "labels" else {}
    return {
        "color": SERIES[place % len(SERIES)],
        "marker": MARKERS[(place + place // len(SERIES)) % len(MARKERS)],
        "linestyle": LINES[supervision],
        "linewidth": 0.9 * medium.line,
        "markersize": 5 * medium.scale,
        "markeredgewidth": medium.scale,
        **hollow,
    }


def reference_style(medium: Medium) -> dict[str, Any]:
    """Return how exact cosine ranking is drawn."""
    return {"color": REFERENCE, "linewidth": 0.7 * medium.line, "linestyle": (0, (6, 2))}


def label_of(name: str, supervision: str) -> str:
    """Return a name that says whether labels were used."""
    return f"{name} (labels)" if supervision == "labels" else name


def group_labels(group: Group, shown: Sequence[Configuration], length: int) -> list[str]:
    """Return the labels of a group's configurations: without the code length where the rest tells them apart."""
    names, series = [one.name for one in shown], [one.series for one in shown]
    short = len(set(series)) == len(series) and sum(map(len, series)) < sum(map(len, names))
    chosen = series if short else names
    return [middle_out(label_of(name, one.supervision), length) for name, one in zip(chosen, shown, strict=True)]


def middle_out(text: str, length: int) -> str:
    """Return at most so many characters, without the middle of a text that is longer: both ends tell names apart."""
    if len(text) <= length:
        return text
    end = (length - 1) // 2
    return f"{text[: length - 1 - end].rstrip()}…{text[-end:].lstrip()}"


def key_of(name: str, style: dict[str, Any], length: int = 34) -> Line2D:
    """Return a legend's entry."""
    return Line2D([], [], label=middle_out(name, length), **style)


def supervisions(configurations: Sequence[Configuration]) -> str:
    """Return what the kinds of lines mean, or what all have in common."""
    there = [key for key in LINES if any(one.supervision == key for one in configurations)]
    if len(there) == 1:
        return f" · {NAMES[there[0]]}"
    kinds = {"labels": "full lines", "none": "broken lines", "features": "dotted lines"}
    return "".join(f" · {kinds[key]}: {NAMES[key]}" for key in there)


def reference_of(report: Report, configurations: Sequence[Configuration], measure: str) -> float | None:
    """Return the measure of exact cosine ranking, or None where it is not the same for all."""
    found = {one.means[measure].exact_cosine for one in configurations}
    return next(iter(found)) if len(found) == 1 else None


def classifier_of(configurations: Sequence[Configuration], measure: str) -> float | None:
    """Return the measure of the best classifier beside methods that were trained with labels, or None without any."""
    beside = [one.means[measure].classifier for one in configurations]
    return max((value for value in beside if value is not None), default=None)


def classifier_style(medium: Medium) -> dict[str, Any]:
    """Return how what labels give without a code is drawn."""
    return reference_style(medium) | {"linestyle": ":"}


def rows_height(medium: Medium, rows: int) -> float:
    """Return how high a plot with rows of text is inside its margins."""
    return rows * 1.75 * medium.tick / 72


def fit(figure: Drawing, text: str) -> str:
    """Return a line of text that the figure has room for."""
    width = figure.get_size_inches()[0]
    return shortened(text, int((width - 0.2) * 72 / (0.54 * figure.medium.subtitle)))
