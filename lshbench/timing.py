"""Time: of a run's parts, and of searching."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from lshbench.index.base import Index
from lshbench.types import Encoded, Neighbors

REPEATS = 3
"""Batches timed at most; the median counts."""

ENOUGH_SECONDS = 30.0
"""No further batch is timed once so much time has gone into them."""

LATENCY_QUERIES = 200
"""Queries searched one at a time for the latency percentiles."""

WARM_UP = 10
"""Queries searched before any is timed: code is loaded, caches and thread pools are filled."""


class Clock:
    """Seconds spent in each named part of a run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Add the time inside the ``with`` block to a part."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(part, time.perf_counter() - start)

    def add(self, part: str, seconds: float) -> None:
        """Add seconds to a part."""
        self.seconds[part] = self.seconds.get(part, 0.0) + seconds

    def move(self, source: str, target: str, seconds: float) -> None:
        """Count seconds of one part as another's."""
        self.add(source, -seconds)
        self.add(target, seconds)

    def total(self) -> float:
        """Return the seconds since the clock was made."""
        return time.perf_counter() - self._start


@dataclass(frozen=True)
class SearchTime:
    """How fast an index answers.

    Attributes:
        neighbors: the results of the whole batch.
        seconds: of the whole batch, median.
        qps: queries a second in the batch.
        latency_ms: percentiles ``p50``, ``p95``, ``p99`` of one query alone, in milliseconds.
    """

    neighbors: Neighbors
    seconds: float
    qps: float
    latency_ms: dict[str, float]


def time_search(index: Index, queries: Encoded, k: int) -> SearchTime:
    """Search all queries in one batch, and some of them alone.

    The time covers finding the first ``k`` results of encoded queries; encoding is not in it, nor is the warm-up.
    """
    # Batches and single queries may take different paths.
    index.search(queries.rows(0, WARM_UP), k)
    index.search(queries.rows(0, 1), k)
    batches: list[float] = []
    while len(batches) < REPEATS and sum(batches) < ENOUGH_SECONDS:
        start = time.perf_counter()
        neighbors = index.search(queries, k)
        batches.append(time.perf_counter() - start)
    single = []
    # Evenly over the queries, which often come sorted by class.
    for row in np.linspace(0, len(queries) - 1, min(LATENCY_QUERIES, len(queries))).astype(int):
        start = time.perf_counter()
        index.search(queries.rows(row, row + 1), k)
        single.append(time.perf_counter() - start)
    seconds = float(np.median(batches))
    return SearchTime(
        neighbors,
        seconds,
        len(queries) / seconds,
        {f"p{p}": float(np.percentile(single, p)) * 1e3 for p in (50, 95, 99)},
    )
