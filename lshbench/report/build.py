"""Building a report: values are read, configurations made, split into groups, and tested within them.

Within a group every pair is tested query by query, and the p-values of a measure are corrected for the number of pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lshbench.errors import wrong_value
from lshbench.report.configurations import configurations_of
from lshbench.report.definitions import definitions
from lshbench.report.names import names_of
from lshbench.report.repeats import no_measure
from lshbench.report.report import Configuration, Group, Report
from lshbench.report.select import Selection, Settings, check_key, shown
from lshbench.report.values import read_values
from lshbench.report.winners import Pair, Side, best_of, tested_pairs

MEASURES = ("AP", "P@10", "P@50")
"""Columns of ``per_query.parquet`` that a report has, where the runs have them."""

BY = ("bits",)
"""Keys that split the configurations of one data set and protocol into groups."""


def build_report(
    selection: Selection,
    *,
    metric: str = "AP",
    by: Sequence[str] = BY,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Report:
    """Return the report of a selection of runs.

    Args:
        selection: finished runs (:func:`lshbench.report.select.find`).
        metric: a column of ``per_query.parquet``, by whose mean configurations are ranked.
        by: keys that split the configurations of one data set and protocol.
        level: coverage of the intervals.
        resamples: sign patterns of the tests; a fifth as many bootstrap draws.
        seed: of both.

    Raises:
        UsageError: a run lacks the metric, no run has a key of ``by``, or no run is left.
    """
    if not 0 < level < 1:
        raise wrong_value("level", level, "a number between 0 and 1")
    if resamples < 100:
        raise wrong_value("resamples", resamples, "at least 100")
    asked = tuple(dict.fromkeys((metric, *MEASURES)))
    selection, values = read_values(selection, asked)
    measures = tuple(name for name in asked if all(name in repeats for repeats in values.values()))
    notes = [f"{name} is left out: some runs have no such column" for name in asked[1:] if name not in measures]
    if metric not in measures:
        raise no_measure(next(run for run in selection.runs if metric not in values[run.path]), metric)
    if any(run.metrics.protocol.leak for run in selection.runs):
        notes.append("(leak): queries are in the gallery or in training, or copies of them; the figures are too good.")
    configurations = configurations_of(selection.runs, values, measures, level, max(100, resamples // 5), seed)
    groups = tuple(
        _group(title, members, measures, resamples, seed) for title, members in _split(configurations, by).items()
    )
    return Report(
        selection, groups, definitions(selection.runs), measures, tuple(by), level, resamples, seed, tuple(notes)
    )


def _split(configurations: Sequence[Configuration], by: Sequence[str]) -> dict[str, list[Configuration]]:
    """Return the configurations of each group under its title.

    Raises:
        UsageError: no run has a key.
    """
    settings = [Settings(one.runs[0]) for one in configurations]
    columns = []
    for key in by:
        found = [one.get(key) for one in settings]
        check_key("--by", key, settings, found)
        columns.append([value for _, value in found])
    fingerprints: dict[str, dict[str, None]] = {}
    for one in configurations:
        fingerprints.setdefault(one.dataset, {})[one.runs[0].metrics.dataset.fingerprint] = None
    groups: dict[tuple[Any, ...], list[Configuration]] = {}
    for place, one in enumerate(configurations):
        fingerprint = one.runs[0].metrics.dataset.fingerprint
        parts = (one.dataset, fingerprint, one.protocol, *(column[place] for column in columns))
        hashable = tuple(shown(part) if isinstance(part, list | dict) else part for part in parts)
        groups.setdefault(hashable, []).append(one)
    titled: dict[str, list[Configuration]] = {}
    for common in sorted(groups, key=lambda common: [_sortable(part) for part in common]):
        dataset, fingerprint, protocol, *values = common
        title = dataset
        if len(fingerprints[dataset]) > 1:
            title += f" (data {fingerprint.removeprefix('sha256:')[:8]})"
        named = [_named_value(name, value) for name, value in zip(by, values, strict=True)]
        titled[", ".join([title, f"protocol {protocol}", *named])] = groups[common]
    return _named(titled)


def _named(groups: Mapping[str, Sequence[Configuration]]) -> dict[str, list[Configuration]]:
    """Return the configurations with their names, told apart within their group, and over all code lengths."""
    everyone: dict[tuple[str, str, str], list[Configuration]] = {}
    for members in groups.values():
        for one in members:
            data = one.runs[0].metrics.dataset
            everyone.setdefault((data.name, data.fingerprint, one.protocol), []).append(one)
    series = {}
    for members in everyone.values():
        names = names_of([one.runs[0] for one in members], bits=False)
        series.update({one.identity: name for one, name in zip(members, names, strict=True)})
    return {
        title: [
            replace(one, name=name, series=series[one.identity])
            for one, name in zip(members, names_of([one.runs[0] for one in members]), strict=True)
        ]
        for title, members in groups.items()
    }


def _named_value(key: str, value: object) -> str:
    if key == "bits":
        return "no code" if value is None else f"{value} bits"
    return f"{key}={shown(value)}"


def _sortable(value: object) -> tuple[int, float, str]:
    if value is None:
        return (0, 0.0, "")
    if isinstance(value, int | float):
        return (1, float(value), "")
    return (2, 0.0, str(value))


def _group(title: str, members: Sequence[Configuration], measures: Sequence[str], resamples: int, seed: int) -> Group:
    ranked = sorted(members, key=lambda one: (-one.means[measures[0]].interval.mean, one.name))
    pairs: dict[str, list[Pair]] = {}
    untested: dict[str, None] = {}
    for name in measures:
        sides = [Side(one.name, one.repeats[name]) for one in ranked]
        pairs[name], reasons = tested_pairs(sides, resamples=resamples, seed=seed)
        untested |= dict.fromkeys(reasons)
    best = tuple(
        best_of([one.name for one in ranked if one.supervision == supervision], pairs[measures[0]], supervision)
        for supervision in dict.fromkeys(one.supervision for one in ranked)
    )
    return Group(title, tuple(ranked), pairs, tuple(untested), best)
