"""The report: one object with everything that is known of a selection of runs, which every rendering takes.

Runs that differ in nothing but the seed have the same ``configuration_id``: they are repeats of one configuration.
Configurations of one data set and protocol, and by default of one code length, form a group.  Within a group every
pair is tested query by query, and the p-values of a measure are corrected for the number of pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from lshbench.errors import UsageError, wrong_value
from lshbench.metrics.significance import Interval, PermutationTest, bootstrap_interval, holm
from lshbench.report.definitions import DefinitionTable, by_configuration, definitions, mean_or_none
from lshbench.report.names import names_of
from lshbench.report.repeats import Reader, Repeat, no_measure, paired_values, same_queries
from lshbench.report.resampling import crossed_intervals, sign_flip_tests
from lshbench.report.select import Selection, Settings, check_key, shown, supervision_of
from lshbench.run_folder import Run

MEASURES = ("AP", "P@10", "P@50")
"""Columns of ``per_query.parquet`` that a report has, where the runs have them."""

BY = ("bits",)
"""Keys that split the configurations of one data set and protocol into groups."""

SIGNIFICANT = 0.05
"""A difference is called significant below this p-value, adjusted for all pairs of its group."""


def measure_name(column: str) -> str:
    """Return what the mean of a column is called: mAP is the mean of AP."""
    return "mAP" if column == "AP" else column


@dataclass(frozen=True)
class Mean:
    """A measure of one configuration.

    Attributes:
        interval: mean over seeds and queries, with its bootstrap interval.
        seed_means: the mean of each seed, by ascending seed.
        spread: their standard deviation (n - 1); None for one seed.
        exact_cosine: the mean over seeds by exact cosine ranking of the same features; None where it is not known.
    """

    interval: Interval
    seed_means: tuple[float, ...]
    spread: float | None
    exact_cosine: float | None


@dataclass(frozen=True)
class Cost:
    """What a search costs, mean over seeds; None where a run has no such figure.

    Attributes:
        candidates: gallery items compared with a query, on average.
        candidates_fraction: the same as a share of the gallery.
        qps: queries a second, in batches, encoding left out.
        latency_p95_ms: milliseconds for 95 % of single queries.
        bytes_per_item: of the index.
        recall_at_10_cosine: share of the first ten by exact cosine that were found.
        peak_memory_bytes: largest resident size of the process.
    """

    candidates: float | None
    candidates_fraction: float | None
    qps: float | None
    latency_p95_ms: float | None
    bytes_per_item: float | None
    recall_at_10_cosine: float | None
    peak_memory_bytes: float | None


@dataclass(frozen=True)
class Configuration:
    """Runs that differ in nothing but the seed.

    Attributes:
        identity: their ``configuration_id``.
        name: method, bits, and whatever else sets it apart from the others of its group.
        series: the same for all code lengths: method, and what else sets it apart from others on its data.
        dataset, backbone, protocol, method, bits, index, ranking: as ``metrics.json`` has them.
        supervision: ``none`` or ``labels``, or ``features`` where these alone are searched.
        leak: whether queries are in the gallery or in training in any of the runs.
        gallery, queries: numbers of items.
        seeds: ascending.
        runs: one a seed.
        means: of each measure.
        cost: of searching.
        time_s: seconds of each part of a run, mean over seeds.
        codes: figures on the gallery's codes, mean over seeds.
        repeats: per-query values of each measure, one a seed.
    """

    identity: str
    name: str
    series: str
    dataset: str
    backbone: str | None
    protocol: str
    method: str
    bits: int | None
    index: str
    ranking: str
    supervision: str
    leak: bool
    gallery: int
    queries: int
    seeds: tuple[int, ...]
    runs: tuple[Run, ...]
    means: Mapping[str, Mean]
    cost: Cost
    time_s: Mapping[str, float | None]
    codes: Mapping[str, float | None]
    repeats: Mapping[str, Sequence[Repeat]] = field(repr=False)

    @property
    def paths(self) -> list[Path]:
        """The runs' folders."""
        return [run.path for run in self.runs]


@dataclass(frozen=True)
class Pair:
    """Test of two configurations, paired by query.

    Attributes:
        first, second: names of the configurations.
        test: the sign-flip test of first minus second.
        adjusted: its p-value by Holm's method, over all pairs of the group.
        seeds: ``all`` where each query's values are averaged over the seeds, or the common seeds, each with queries of
            its own.
    """

    first: str
    second: str
    test: PermutationTest
    adjusted: float
    seeds: str

    @property
    def significant(self) -> bool:
        """Whether the difference is more than chance."""
        return self.adjusted < SIGNIFICANT


@dataclass(frozen=True)
class Best:
    """The configuration with the highest mean among those of one supervision.

    Attributes:
        supervision: of all that it is compared with.
        name: of the configuration.
        runner_up: the next one's name; None where there is no other.
        beaten, others: how many of the others it differs from significantly, and how many there are.
    """

    supervision: str
    name: str
    runner_up: str | None
    beaten: int
    others: int


@dataclass(frozen=True)
class Group:
    """Configurations that may be compared: one data set, one protocol, and equal values of the keys of ``--by``.

    Attributes:
        title: what they have in common.
        configurations: by the mean of the report's first measure, best first.
        pairs: of each measure, every pair.
        untested: pairs that could not be tested, and why.
        best: of the first measure, one for each supervision.
    """

    title: str
    configurations: tuple[Configuration, ...]
    pairs: Mapping[str, Sequence[Pair]]
    untested: tuple[str, ...]
    best: tuple[Best, ...]


@dataclass(frozen=True)
class Report:
    """Everything that is known of a selection of runs.

    Attributes:
        selection: the runs, and what was left out.
        groups: in the order of data sets, protocols and the values of ``by``.
        definitions: published definitions of the metrics.
        measures: columns of ``per_query.parquet``; the first one ranks.
        by: keys that split groups.
        level: coverage of the intervals.
        resamples: sign patterns of the tests; a fifth as many bootstrap draws.
        seed: of both.
        notes: what else the reader must know.
    """

    selection: Selection
    groups: tuple[Group, ...]
    definitions: DefinitionTable
    measures: tuple[str, ...]
    by: tuple[str, ...]
    level: float
    resamples: int
    seed: int
    notes: tuple[str, ...] = ()

    @property
    def configurations(self) -> list[Configuration]:
        """Those of all groups."""
        return [one for group in self.groups for one in group.configurations]

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as plain numbers and text, for JSON."""
        return {
            "measures": list(self.measures),
            "by": list(self.by),
            "level": self.level,
            "resamples": self.resamples,
            "seed": self.seed,
            "runs": len(self.selection.runs),
            "left_out": self.selection.notes(),
            "notes": list(self.notes),
            "groups": [_group_as_dict(group) for group in self.groups],
            "definitions": self.definitions.as_dict(),
        }


def _group_as_dict(group: Group) -> dict[str, Any]:
    plain = (
        "identity", "name", "series", "dataset", "backbone", "protocol", "method", "bits", "index", "ranking",
        "supervision", "leak", "gallery", "queries",
    )  # fmt: skip
    return {
        "title": group.title,
        "configurations": [
            {
                **{key: getattr(one, key) for key in plain},
                "seeds": list(one.seeds),
                "runs": [str(path) for path in one.paths],
                "means": {measure_name(key): asdict(mean) for key, mean in one.means.items()},
                "cost": asdict(one.cost),
                "time_s": dict(one.time_s),
                "codes": dict(one.codes),
            }
            for one in group.configurations
        ],
        "pairs": {
            measure_name(key): [
                {
                    "first": pair.first,
                    "second": pair.second,
                    "seeds": pair.seeds,
                    "p_value_holm": pair.adjusted,
                    **asdict(pair.test),
                }
                for pair in pairs
            ]
            for key, pairs in group.pairs.items()
        },
        "untested": list(group.untested),
        "best": [asdict(best) for best in group.best],
    }


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
    selection, values = _read(selection, asked)
    measures = tuple(name for name in asked if all(name in repeats for repeats in values.values()))
    notes = [f"{name} is left out: some runs have no such column" for name in asked[1:] if name not in measures]
    if metric not in measures:
        raise no_measure(next(run for run in selection.runs if metric not in values[run.path]), metric)
    if any(run.metrics.protocol.leak for run in selection.runs):
        notes.append("(leak): queries are in the gallery or in training, or copies of them; the figures are too good.")
    configurations = _configurations(selection.runs, values, measures, level, max(100, resamples // 5), seed)
    groups = tuple(
        _group(title, members, measures, resamples, seed) for title, members in _split(configurations, by).items()
    )
    return Report(
        selection, groups, definitions(selection.runs), measures, tuple(by), level, resamples, seed, tuple(notes)
    )


def _read(selection: Selection, measures: Sequence[str]) -> tuple[Selection, dict[Path, dict[str, Repeat]]]:
    """Return the runs whose per-query values can be read, the others among the damaged, and the values."""
    reader, values, runs, damaged = Reader(), {}, [], list(selection.damaged)
    for run in selection.runs:
        try:
            values[run.path] = reader.read(run, measures)
            runs.append(run)
        except UsageError as error:
            damaged.append((run.path, str(error)))
    selection = replace(selection, runs=tuple(runs), damaged=tuple(damaged))
    if not runs:
        raise UsageError(f"no run is left to report: {'; '.join(selection.notes())}")
    return selection, values


def _configurations(
    runs: Sequence[Run],
    values: Mapping[Path, Mapping[str, Repeat]],
    measures: Sequence[str],
    level: float,
    resamples: int,
    seed: int,
) -> list[Configuration]:
    made = []
    for identity, members in by_configuration(runs).items():
        members.sort(key=lambda run: run.metrics.seed)
        first = members[0].metrics
        repeats = {name: [values[run.path][name] for run in members] for name in measures}
        made.append(
            Configuration(
                identity=identity,
                name="",
                series="",
                dataset=first.dataset.name,
                backbone=first.dataset.backbone,
                protocol=first.protocol.name,
                method=first.method.name,
                bits=first.method.bits,
                index=first.search.index,
                ranking=first.ranking,
                supervision=supervision_of(members[0]),
                leak=any(run.metrics.protocol.leak for run in members),
                gallery=first.dataset.gallery,
                queries=len(repeats[measures[0]][0].queries),
                seeds=tuple(run.metrics.seed for run in members),
                runs=tuple(members),
                means={},
                cost=_cost(members),
                time_s=_each(members, lambda run: run.metrics.time_s),
                codes=_each(members, _code_figures),
                repeats=repeats,
            )
        )
    intervals = _intervals(made, measures, level, resamples, seed)
    return [
        replace(one, means={name: _mean(one, name, intervals[place, name]) for name in measures})
        for place, one in enumerate(made)
    ]


def _intervals(
    configurations: Sequence[Configuration], measures: Sequence[str], level: float, resamples: int, seed: int
) -> dict[tuple[int, str], Interval]:
    """Return the interval of every configuration, by its place, and measure."""
    intervals: dict[tuple[int, str], Interval] = {}
    crossed: dict[int, list[tuple[tuple[int, str], np.ndarray]]] = {}
    for place, one in enumerate(configurations):
        for name in measures:
            values = [repeat.values for repeat in one.repeats[name]]
            if same_queries(one.repeats[name]):
                crossed.setdefault(len(values[0]), []).append(((place, name), np.stack(values)))
            else:
                intervals[place, name] = bootstrap_interval(values, level=level, resamples=resamples, seed=seed)
    for parts in crossed.values():
        found = crossed_intervals([values for _, values in parts], level=level, resamples=resamples, seed=seed)
        intervals.update(zip((key for key, _ in parts), found, strict=True))
    return intervals


def _mean(one: Configuration, name: str, interval: Interval) -> Mean:
    means = tuple(float(repeat.values.mean()) for repeat in one.repeats[name])
    references = [run.metrics.reference.cosine for run in one.runs]
    exact = [None if cosine is None else cosine.get(measure_name(name)) for cosine in references]
    spread = float(np.std(means, ddof=1)) if len(means) > 1 else None
    return Mean(interval, means, spread, mean_or_none(exact))


def _cost(runs: Sequence[Run]) -> Cost:
    def mean(figure: Callable[[Run], float | None]) -> float | None:
        return mean_or_none([figure(run) for run in runs])

    return Cost(
        candidates=mean(lambda run: run.metrics.search.candidates_mean),
        candidates_fraction=mean(lambda run: run.metrics.search.candidates_fraction),
        qps=mean(lambda run: run.metrics.search.qps),
        latency_p95_ms=mean(lambda run: run.metrics.search.latency_ms["p95"]),
        bytes_per_item=mean(lambda run: run.metrics.memory.bytes_per_item),
        recall_at_10_cosine=mean(lambda run: run.metrics.search.recall_at_10_cosine),
        peak_memory_bytes=mean(lambda run: run.metrics.memory.peak_rss_bytes),
    )


def _code_figures(run: Run) -> dict[str, float | None]:
    codes = run.metrics.codes
    return {
        "bit_balance": codes.bit_balance,
        "bit_correlation": codes.bit_correlation,
        "constant_bits": codes.constant_bits,
        "entropy_bits": codes.entropy_bits,
        "code_entropy_bits": codes.code_entropy_bits,
        "distinct_codes": codes.distinct_codes,
        "largest_bucket": codes.buckets.largest if codes.buckets else None,
        "quantisation_loss": codes.quantisation_loss,
    }


def _each(runs: Sequence[Run], figures: Callable[[Run], Mapping[str, float | None]]) -> dict[str, float | None]:
    found = [figures(run) for run in runs]
    return {
        key: mean_or_none([one.get(key) for one in found]) for key in dict.fromkeys(k for one in found for k in one)
    }


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
        compared = []
        for one, other in combinations(ranked, 2):
            try:
                compared.append((one, other, *paired_values(_Side(one, name), _Side(other, name))))
            except UsageError as error:
                untested[str(error)] = None
        tests = sign_flip_tests([left - right for _, _, left, right, _ in compared], resamples=resamples, seed=seed)
        adjusted = holm(np.array([test.p_value for test in tests]))
        pairs[name] = [
            Pair(one.name, other.name, test, float(p_value), seeds)
            for (one, other, _, _, seeds), test, p_value in zip(compared, tests, adjusted, strict=True)
        ]
    best = _best(ranked, pairs[measures[0]])
    return Group(title, tuple(ranked), pairs, tuple(untested), best)


class _Side:
    """A configuration's values of one measure, as pairing takes them."""

    def __init__(self, one: Configuration, measure: str) -> None:
        self.name = one.name
        self.repeats = one.repeats[measure]


def _best(ranked: Sequence[Configuration], pairs: Sequence[Pair]) -> tuple[Best, ...]:
    found = []
    for supervision in dict.fromkeys(one.supervision for one in ranked):
        first, *others = [one.name for one in ranked if one.supervision == supervision]
        beaten = [
            pair
            for pair in pairs
            if pair.significant and pair.test.difference > 0 and pair.first == first and pair.second in others
        ]
        found.append(Best(supervision, first, others[0] if others else None, len(beaten), len(others)))
    return tuple(found)
