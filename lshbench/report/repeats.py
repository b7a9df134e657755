"""Per-query values of runs, and how those of two configurations are paired."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lshbench.errors import UsageError, wrong_value
from lshbench.run_folder import Run
from lshbench.run_folder.contents import PER_QUERY

if TYPE_CHECKING:
    import pyarrow

NOT_MEASURES = frozenset({"query", "label", "first_hits", "first_distances", "first_relevant"})
"""Columns of ``per_query.parquet`` that are not metrics."""


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


class Repeated(Protocol):
    """A configuration, as :func:`paired_values` takes it: its name, and a measure's values of each run."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def repeats(self) -> Sequence[Repeat]:
        """Its runs' values."""

    @property
    def averaged(self) -> np.ndarray:
        """These averaged over the runs, one array however often it is asked for; float64 ``(q,)``."""


class Reader:
    """Reader of per-query values that keeps equal lists of queries once."""

    def __init__(self) -> None:
        self._asked: list[tuple[np.ndarray, pyarrow.Array]] = []

    def read(self, run: Run, measures: Sequence[str]) -> dict[str, Repeat]:
        """Return a run's values of the measures that it has, by ascending query number.

        Raises:
            UsageError: the file is not there, it is damaged, or a value is missing.
        """
        import pyarrow

        path = run.path / PER_QUERY
        try:
            offered = run.per_query_columns()
            kept = [name for name in measures if name in offered]
            table = run.per_query(["query", "label", *kept])
        except (OSError, KeyError, pyarrow.ArrowException) as error:
            raise UsageError(f"{path} is damaged: {type(error).__name__}: {error}") from error
        numbers = numbers_of(table["query"]).astype(np.int64)
        order = np.argsort(numbers, kind="stable")
        labels = table["label"].combine_chunks()
        if (np.diff(numbers) < 0).any():
            labels = labels.take(pyarrow.array(order))
        queries, labels = self._once(numbers[order], labels)
        repeats = {}
        for name in kept:
            column = table[name]
            values = numbers_of(column).astype(np.float64)[order] if not column.null_count else None
            if values is None or not len(values) or not np.isfinite(values).all():
                raise UsageError(f"{path} has no value of {name} for some queries, or no query")
            repeats[name] = Repeat(run.path, run.metrics.seed, queries, labels, values)
        return repeats

    def _once(self, queries: np.ndarray, labels: pyarrow.Array) -> tuple[np.ndarray, pyarrow.Array]:
        for known in self._asked:
            if np.array_equal(known[0], queries) and known[1].equals(labels):
                return known
        self._asked.append((queries, labels))
        return queries, labels


def numbers_of(column: pyarrow.Array | pyarrow.ChunkedArray) -> np.ndarray:
    """Return a column of numbers without nulls as an array; Arrow's own conversion imports pandas, half a second."""
    chunks = getattr(column, "chunks", [column])
    return np.concatenate([np.from_dlpack(chunk) for chunk in chunks]) if chunks else np.empty(0)


def read_repeat(run: Run, measure: str) -> Repeat:
    """Return a run's values of a measure, by ascending query number.

    Raises:
        UsageError: there is no such measure, or no value for some queries.
    """
    repeats = Reader().read(run, [measure])
    if measure not in repeats:
        raise no_measure(run, measure)
    return repeats[measure]


def no_measure(run: Run, measure: str) -> UsageError:
    """Return the error for a measure that a run lacks."""
    offered = [name for name in run.per_query_columns() if name not in NOT_MEASURES]
    return wrong_value("metric", measure, f"a column of {run.path / PER_QUERY}: {', '.join(offered)}")


def paired_values(one: Repeated, other: Repeated) -> tuple[np.ndarray, np.ndarray, str]:
    """Return the values of two configurations, paired by query, and which seeds they come from.

    Raises:
        UsageError: they answered different queries.
    """
    if same_queries([*one.repeats, *other.repeats]):
        return one.averaged, other.averaged, "all"
    theirs = {repeat.seed: repeat for repeat in other.repeats}
    common = [(repeat, theirs[repeat.seed]) for repeat in one.repeats if repeat.seed in theirs]
    if not common:
        raise UsageError(f"{one.name} and {other.name} answered different queries and share no seed: no pairs")
    for left, right in common:
        if not same_queries([left, right]):
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


def same_queries(repeats: Sequence[Repeat]) -> bool:
    """Return whether all answered the same queries, with the same labels."""
    first = repeats[0]
    return all(
        (first.queries is repeat.queries or np.array_equal(first.queries, repeat.queries))
        and (first.labels is repeat.labels or first.labels.equals(repeat.labels))
        for repeat in repeats[1:]
    )
