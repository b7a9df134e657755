"""Timing of a run's parts, of searching, of encoding queries, and of an exact scan to compare with.

The rules: code is warmed up before anything is timed; the number of threads is fixed for every library and recorded
with the run (:mod:`lshbench.runtime.threads`); a batch and single queries are timed apart; of repeated measurements the
median is given, never the best.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from lshbench.index.base import Index
from lshbench.ranking.cosine import VectorGallery, cosine_neighbors
from lshbench.runtime import scratch
from lshbench.types import Encoded, Neighbors

REPEATS = 3
"""Most batches timed; their median is given."""

ENOUGH_SECONDS = 30.0
"""Seconds in timed batches after which no further one is timed."""

LATENCY_QUERIES = 200
"""Queries searched one at a time for the latency percentiles."""

WARM_UP = 64
"""Queries searched before any is timed: code is loaded, caches and thread pools are filled.  As many as make a batch
for every index: some search up to sixteen queries by other code than more of them."""

SCAN_QUERIES = 256
"""Queries of the exact scan's batch."""

SCAN_SECONDS = 0.25
"""Seconds in exact scans of batches, and in those of single queries, after which no further one is timed."""

SPARE_LOAD = 1.0
"""Threads that wait beyond the machine's cores, on average over a minute, before it counts as busy."""

SPREAD, SPREAD_SECONDS = 0.5, 0.02
"""Difference of a batch's repeats, as a share of their median, from which the machine counts as busy, and seconds of a
batch from which it says anything."""

PERCENTILES = (50, 95, 99)

Result = TypeVar("Result")

Encode = Callable[[int, int], Encoded]
"""Callback that encodes the queries from a start row to a stop row."""


class Clock:
    """Stopwatch for the named parts of a run."""

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
        """Move seconds from one part to another."""
        self.add(source, -seconds)
        self.add(target, seconds)

    def parts(self) -> dict[str, float]:
        """Return the seconds of each part, of what is in none (``other``), and since the clock was made (``total``)."""
        total = time.perf_counter() - self._start
        return {**self.seconds, "other": max(total - sum(self.seconds.values()), 0.0), "total": total}


@dataclass(frozen=True)
class SearchTime:
    """Results and timings of searching an index.

    Attributes:
        neighbors: the results of the whole batch.
        seconds: of searching the whole batch of encoded queries, median.
        encode_seconds: of encoding the whole batch, median.
        latency_ms: milliseconds of one query alone: percentiles of searching (``p50``, ``p95``, ``p99``), of encoding
            (``encode_p50``, ...) and of both together (``with_encoding_p50``, ...); and the mean of a query in the
            batch, ``encode_batch`` and ``with_encoding_batch``.
        busy: why these times may be too long (:func:`busy`), or None.
    """

    neighbors: Neighbors
    seconds: float
    encode_seconds: float
    latency_ms: dict[str, float]
    busy: str | None = None

    @property
    def qps(self) -> float:
        """Queries per second in the batch, encoding left out."""
        return len(self.neighbors.ids) / self.seconds

    @property
    def qps_with_encoding(self) -> float:
        """Queries per second in the batch, from features to results."""
        return len(self.neighbors.ids) / (self.seconds + self.encode_seconds)


def time_encoding(encode: Encode, number: int) -> float:
    """Return the seconds that encoding a batch of ``number`` queries takes, median."""
    encode(0, min(WARM_UP, number))
    return _median(lambda: encode(0, number))[0]


def time_search(index: Index, queries: Encoded, encode: Encode, encode_seconds: float, k: int) -> SearchTime:
    """Search all queries in one batch, and some of them alone, each encoded first.

    Args:
        index: the built index, at the point to time.
        queries: encoded.
        encode: the callback that encoded them.
        encode_seconds: what :func:`time_encoding` returned.
        k: results of each query.
    """
    # Both are warmed up, as batches and single queries may take different code paths.
    index.search(queries[:WARM_UP], k)
    for row in range(min(3, len(queries))):
        index.search(encode(row, row + 1), k)
    times, neighbors = _repeat(lambda: index.search(queries, k))
    seconds = float(np.median(times))
    single = []
    for row in _spread(len(queries), LATENCY_QUERIES):
        start = time.perf_counter()
        query = encode(row, row + 1)
        encoded = time.perf_counter()
        index.search(query, k)
        single.append((start, encoded, time.perf_counter()))
    starts, encodings, ends = np.array(single).T
    latency = {
        **_percentiles("", ends - encodings),
        **_percentiles("encode_", encodings - starts),
        **_percentiles("with_encoding_", ends - starts),
        "encode_batch": 1e3 * encode_seconds / len(queries),
        "with_encoding_batch": 1e3 * (seconds + encode_seconds) / len(queries),
    }
    return SearchTime(neighbors, seconds, encode_seconds, latency, busy(times))


def busy(times: list[float]) -> str | None:
    """Return what says that the machine is busy with other work, in words: its load, repeats that differ; or None.

    Args:
        times: seconds of the same batch, repeated.
    """
    signs = []
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores + SPARE_LOAD:
        signs.append(f"load {load:.1f} on {cores} core{'s' if cores > 1 else ''}")
    median = float(np.median(times))
    spread = (max(times) - min(times)) / median if median else 0.0
    if median >= SPREAD_SECONDS and spread > SPREAD:
        signs.append(f"repeats of a batch {spread:.0%} apart")
    return ", ".join(signs) or None


def time_exact_scan(gallery: np.ndarray, queries: np.ndarray, k: int) -> dict[str, float]:
    """Time exhaustive search by the cosine of features, which needs no codes and no index.

    Args:
        gallery: float32 ``(n, d)``.
        queries: float32 ``(q, d)``, of which a part is searched.
        k: results of each query.

    Returns:
        Milliseconds of a query alone, ``exact_p50``, and of one in a batch, ``exact_batch``.
    """
    prepared = VectorGallery.from_vectors(gallery)
    some = queries[_spread(len(queries), SCAN_QUERIES)]
    for warm in (some[:WARM_UP], some[:1]):
        cosine_neighbors(warm, prepared, k)
    batch, _ = _median(lambda: cosine_neighbors(some, prepared, k), enough=SCAN_SECONDS)
    single: list[float] = []
    while len(single) < min(len(some), LATENCY_QUERIES) and sum(single) < SCAN_SECONDS:
        query = some[len(single)][None]
        start = time.perf_counter()
        cosine_neighbors(query, prepared, k)
        single.append(time.perf_counter() - start)
    scratch.release(gallery)  # else a map stays in memory, all of it read
    return {"exact_p50": 1e3 * float(np.median(single)), "exact_batch": 1e3 * batch / len(some)}


def _median(work: Callable[[], Result], enough: float = ENOUGH_SECONDS) -> tuple[float, Result]:
    """Return the median of the seconds of repeated work, and its last result."""
    times, result = _repeat(work, enough)
    return float(np.median(times)), result


def _repeat(work: Callable[[], Result], enough: float = ENOUGH_SECONDS) -> tuple[list[float], Result]:
    """Return the seconds of repeated work, and its last result."""
    times: list[float] = []
    while True:
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
        if len(times) == REPEATS or sum(times) >= enough:
            return times, result


def _spread(number: int, most: int) -> np.ndarray:
    """Return evenly spaced rows of the queries, which are often sorted by class."""
    return np.linspace(0, number - 1, min(most, number)).astype(int)


def _percentiles(prefix: str, seconds: np.ndarray) -> dict[str, float]:
    return {f"{prefix}p{p}": 1e3 * float(np.percentile(seconds, p)) for p in PERCENTILES}
