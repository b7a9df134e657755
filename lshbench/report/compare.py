"""Comparison of finished runs: means with intervals, and tests of the differences.

Runs that differ in nothing but the seed have the same ``configuration_id``: they are repeats of one configuration.
Every pair of configurations is compared query by query; the p-values are corrected for the number of pairs.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lshbench.errors import UsageError, wrong_value
from lshbench.metrics.definitions import DEFINITIONS, definition_of, template
from lshbench.metrics.significance import (
    Interval,
    PermutationTest,
    bootstrap_interval,
    holm,
    paired_permutation_test,
)
from lshbench.run_folder import Run, finished_runs
from lshbench.run_folder.contents import METRICS, PER_QUERY

if TYPE_CHECKING:
    import pyarrow

log = logging.getLogger(__name__)

NOT_NAMED = frozenset({"cache", "device", "evaluation", "hydra", "output", "reference", "resume", "threads", "tracker"})
"""Root keys of a configuration that no figure depends on, and that names leave out."""

NOT_MEASURES = frozenset({"query", "label", "first_hits", "first_distances"})
"""Columns of ``per_query.parquet`` that are not metrics."""

Settings = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Repeat:
    """Per-query values of one run: one seed of a configuration.

    Attributes:
        path: the run's folder.
        seed: its seed.
        queries: int64 ``(q,)``, item numbers, ascending.
        labels: their labels, in that order: an Arrow array of integers or of lists.
        values: float64 ``(q,)``, the metric, in that order.
    """

    path: Path
    seed: int
    queries: np.ndarray
    labels: pyarrow.Array
    values: np.ndarray


@dataclass(frozen=True)
class Configuration:
    """Runs that differ in nothing but the seed.

    Attributes:
        name: method, bits, and whatever else sets it apart from the others compared.
        settings: those that name the configuration (:func:`settings_of`).
        repeats: one for each seed, by seed.
        interval: mean over seeds and queries, with its bootstrap interval.
        supervision: ``none`` or ``labels``, or ``features`` where these alone are searched.
        leak: whether queries are in the gallery or in training in any of the runs.
    """

    name: str
    settings: Settings
    repeats: list[Repeat]
    interval: Interval
    supervision: str
    leak: bool


@dataclass(frozen=True)
class Pair:
    """Test of two configurations, paired by query.

    Attributes:
        first, second: names of the configurations.
        test: the sign-flip test of first minus second.
        adjusted: its p-value by Holm's method, over all pairs compared.
        seeds: ``all`` where each query's values are averaged over the seeds, or the common seeds, each with queries of
            its own.
    """

    first: str
    second: str
    test: PermutationTest
    adjusted: float
    seeds: str


@dataclass(frozen=True)
class Comparison:
    """Comparison of configurations, best first, and of every pair of them."""

    metric: str
    configurations: list[Configuration]
    pairs: list[Pair]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain numbers and text, for JSON."""
        return {
            "metric": self.metric,
            "configurations": [
                {
                    "name": one.name,
                    "settings": dict(one.settings),
                    "seeds": [repeat.seed for repeat in one.repeats],
                    "runs": [str(repeat.path) for repeat in one.repeats],
                    "seed_means": [float(repeat.values.mean()) for repeat in one.repeats],
                    "queries": len(one.repeats[0].queries),
                    "supervision": one.supervision,
                    "leak": one.leak,
                    **asdict(one.interval),
                }
                for one in self.configurations
            ],
            "pairs": [
                {
                    "first": pair.first,
                    "second": pair.second,
                    "seeds": pair.seeds,
                    "p_value_holm": pair.adjusted,
                    **asdict(pair.test),
                }
                for pair in self.pairs
            ],
        }


@dataclass(frozen=True)
class DefinitionRow:
    """A published definition with its value in each configuration.

    Attributes:
        key: as in ``metrics.json``, such as ``mAP@1000/hits``.
        template: the key with ``{k}`` or ``{r}`` for its rank or radius, which have one formula in common.
        values: the mean over seeds for each configuration; None where the ranking has no such value.
        formula: what is computed, in words.
        published_by: code that reports it; empty if none is known to.
    """

    key: str
    template: str
    values: list[float | None]
    formula: str
    published_by: tuple[str, ...]


@dataclass(frozen=True)
class DefinitionTable:
    """Table of the published definitions, to compare figures with a paper's by the paper's own measure.

    Attributes:
        names: of the configurations, as :class:`Comparison` has them, in order of the runs.
        leaks: whether queries are in the gallery or in training in any run of each.
        rows: one a definition.
    """

    names: list[str]
    leaks: list[bool]
    rows: list[DefinitionRow]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain numbers and text, for JSON."""
        return asdict(self)


def definitions(runs: Sequence[Run]) -> DefinitionTable:
    """Return every published definition of finished runs, each with its formula and the code that reports it."""
    groups = group_runs(runs)
    keys = {key: None for run in runs for key in run.metrics.definitions if template(key) in DEFINITIONS}
    rows = []
    for key in keys:
        definition = definition_of(key)
        values = [mean_or_none([run.metrics.definitions.get(key) for run in members]) for members in groups.values()]
        rows.append(DefinitionRow(key, template(key), values, definition.formula, definition.published_by))
    names = names_of([members[0] for members in groups.values()])
    return DefinitionTable(names, [_leaks(members) for members in groups.values()], rows)


def mean_or_none(values: Sequence[float | None]) -> float | None:
    """Return the mean, None where a value is missing."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def group_runs(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return runs by their configuration's identity, in order of their first runs, each result once.

    Runs with the same ``run_id`` are one result; the log says which ones are left out, and warns where their figures
    differ.
    """
    results: dict[str, Run] = {}
    groups: dict[str, list[Run]] = {}
    for run in runs:
        first = results.setdefault(run.metrics.run_id, run)
        if first is run:
            groups.setdefault(run.metrics.configuration_id, []).append(run)
        elif run.metrics.metrics == first.metrics.metrics:
            log.warning("%s repeats %s and is left out", run.path, first.path)
        else:
            log.warning("%s repeats %s with OTHER FIGURES and is left out", run.path, first.path)
    return groups


def _leaks(runs: Sequence[Run]) -> bool:
    return any(run.metrics.protocol.leak for run in runs)


def find_runs(folders: Sequence[Path]) -> list[Run]:
    """Return the finished runs in and below folders, each once.

    Raises:
        UsageError: a folder is not there, or holds no finished run.
    """
    runs: dict[Path, Run] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder} is no folder: expected a run, or a folder of runs")
        found = list(finished_runs(folder))
        if not found:
            raise UsageError(f"{folder} holds no finished run (no {METRICS} in it or below it)")
        runs.update((run.path.resolve(), run) for run in found)
    return list(runs.values())


def compare(
    runs: Sequence[Run], metric: str = "AP", *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Comparison:
    """Group runs by configuration and test every pair.

    Where all runs of two configurations answered the same queries, each query's mean over the seeds is paired.  Where
    queries are drawn by the seed, seeds that both have are paired, and their differences pooled.

    Args:
        runs: finished runs (:func:`find_runs`).
        metric: a column of ``per_query.parquet``, such as ``AP``.
        level: coverage of the intervals.
        resamples: sign patterns of the tests; a fifth as many bootstrap draws.
        seed: of both.

    Raises:
        UsageError: a run lacks the metric, or runs answered different queries.
    """
    if not 0 < level < 1:
        raise wrong_value("level", level, "a number between 0 and 1")
    if resamples < 100:
        raise wrong_value("resamples", resamples, "at least 100")
    groups = group_runs(runs)
    configurations = []
    names = names_of([members[0] for members in groups.values()])
    for members, name in zip(groups.values(), names, strict=True):
        repeats = sorted((read_repeat(run, metric) for run in members), key=lambda repeat: repeat.seed)
        values = [repeat.values for repeat in repeats]
        crossed = np.stack(values) if _same_queries(repeats) else values
        interval = bootstrap_interval(crossed, level=level, resamples=max(100, resamples // 5), seed=seed)
        first, settings = members[0].metrics, settings_of(members[0])
        supervision = "features" if first.features_alone else first.method.supervision
        configurations.append(Configuration(name, settings, repeats, interval, supervision, _leaks(members)))
    configurations.sort(key=lambda one: (-one.interval.mean, one.name))
    tests = []
    for one, other in combinations(configurations, 2):
        left, right, seeds = paired_values(one, other)
        tests.append((one, other, paired_permutation_test(left, right, resamples=resamples, seed=seed), seeds))
    adjusted = holm(np.array([test.p_value for _, _, test, _ in tests]))
    pairs = [
        Pair(one.name, other.name, test, float(p_value), seeds)
        for (one, other, test, seeds), p_value in zip(tests, adjusted, strict=True)
    ]
    return Comparison(metric, configurations, pairs)


def read_repeat(run: Run, metric: str) -> Repeat:
    """Return a run's values of a metric, by ascending query number."""
    table = run.per_query()
    offered = [name for name in table.column_names if name not in NOT_MEASURES]
    if metric not in offered:
        raise wrong_value("metric", metric, f"a column of {run.path / PER_QUERY}: {', '.join(offered)}")
    queries = np.asarray(table["query"].to_numpy(), np.int64)
    values = np.asarray(table[metric].to_numpy(), np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise UsageError(f"{run.path / PER_QUERY} has no value of {metric} for some queries, or no query")
    order = np.argsort(queries, kind="stable")
    labels = table["label"].combine_chunks().take(order)
    return Repeat(run.path, run.metrics.seed, queries[order], labels, values[order])


def paired_values(one: Configuration, other: Configuration) -> tuple[np.ndarray, np.ndarray, str]:
    """Return the values of two configurations, paired by query, and which seeds they come from.

    Raises:
        UsageError: they answered different queries.
    """
    if _same_queries([*one.repeats, *other.repeats]):
        first, second = (np.mean([repeat.values for repeat in side.repeats], axis=0) for side in (one, other))
        return first, second, "all"
    theirs = {repeat.seed: repeat for repeat in other.repeats}
    common = [(repeat, theirs[repeat.seed]) for repeat in one.repeats if repeat.seed in theirs]
    if not common:
        raise UsageError(f"{one.name} and {other.name} answered different queries and share no seed: no pairs")
    for left, right in common:
        if not _same_queries([left, right]):
            if np.array_equal(left.queries, right.queries):
                raise UsageError(
                    f"{left.path} and {right.path} number their queries alike, but give them other labels: "
                    "expected runs of one data set"
                )
            shared = len(np.intersect1d(left.queries, right.queries))
            raise UsageError(
                f"{left.path} and {right.path} answered different queries ({len(left.queries)} and "
                f"{len(right.queries)}, {shared} in common): expected runs of one data set, protocol and seed"
            )
    return (
        np.concatenate([left.values for left, _ in common]),
        np.concatenate([right.values for _, right in common]),
        ", ".join(str(left.seed) for left, _ in common),
    )


def settings_of(run: Run) -> Settings:
    """Return the settings that name a run's configuration, as sorted pairs of a dotted key and its value."""
    config = {key: value for key, value in run.config().items() if key not in NOT_NAMED}
    return tuple(sorted(_flat(config)))


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in node.items():
        # Methods and protocols carry the root's seed and device in their own nodes.
        if key in ("seed", "device", "_target_"):
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value if isinstance(value, str) else json.dumps(value)


def names_of(runs: Sequence[Run]) -> list[str]:
    """Return a short name for each configuration: method and bits, and every key in which they differ.

    A key of a method, an index or another named choice tells apart what has the same name there: between others the
    name does, and the key is left out.  Configurations of equal settings differ in the source code that computed
    them, or in their data; the name then says which, by the digest's first digits.

    Args:
        runs: one of each configuration.
    """
    settings = [settings_of(run) for run in runs]
    tables = [dict(pairs) for pairs in settings]
    keys = {key for table in tables for key in table} - {"bits", "method.bits", "index.bits", "method.name"}
    ordered = sorted(keys, key=lambda key: (key.partition(".")[0], not key.endswith(".name"), key))
    names = []
    for run, own, table in zip(runs, settings, tables, strict=True):
        method = run.metrics.method
        parts = ["features"] if method.bits is None else [method.name, f"{table.get('bits', '?')} bits"]
        for key in ordered:
            if key not in table:
                continue
            name = f"{key.partition('.')[0]}.name"
            scope = [other for other in tables if key == name or other.get(name) == table.get(name)]
            if len({other.get(key) for other in scope if key in other}) > 1:
                parts.append(f"{key.removesuffix('.name')}={table[key]}")
        alike = [_digests(other) for other, theirs in zip(runs, settings, strict=True) if theirs == own]
        for key, digest in _digests(run).items():
            if any(other[key] != digest for other in alike):
                parts.append(f"{key}={digest.removeprefix('sha256:')[:8]}")
                alike = [other for other in alike if other[key] == digest]
        names.append(" ".join(parts))
    return names


def _digests(run: Run) -> dict[str, str]:
    """Return the digests that tell configurations of equal settings apart, the most telling first."""
    metrics = run.metrics
    return {"source": metrics.source, "data": metrics.dataset.fingerprint, "configuration": metrics.configuration_id}


def _same_queries(repeats: Sequence[Repeat]) -> bool:
    first = repeats[0]
    return all(
        np.array_equal(first.queries, repeat.queries) and first.labels.equals(repeat.labels) for repeat in repeats[1:]
    )
