"""Time: what is in a figure and what is not; and a grid of query settings, row by row."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest

from lshbench.evaluation import timing
from lshbench.evaluation.reference import Reference
from lshbench.evaluation.timing import Clock, time_encoding, time_exact_scan, time_search
from lshbench.evaluation.tradeoff import Queries, measure_points, overlap
from lshbench.index.buckets import BucketsIndex
from lshbench.index.flat import FlatIndex
from lshbench.types import Codes, Encoded, Neighbors, Relevance


class Slow(FlatIndex):
    """Counts calls; the first of a query alone, of a few and of many takes longer, as compiling does."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []
        self.compiled: set[int] = set()

    def search(self, queries: Encoded, k: int) -> Neighbors:
        kind = np.searchsorted([1, 16], len(queries)).item()
        time.sleep(0.002 if kind in self.compiled else 0.05)
        self.compiled.add(kind)
        self.asked.append(len(queries))
        return super().search(queries, k)


def sides(seed: int = 0) -> tuple[Encoded, Encoded, Relevance]:
    generator = np.random.default_rng(seed)
    made = []
    for count in (200, 40):
        x = generator.standard_normal((count, 24)).astype(np.float32)
        made.append(Encoded(x, replace(Codes.from_signs(x), projections=x)))
    return made[0], made[1], Relevance(generator.integers(0, 3, 40), generator.integers(0, 3, 200))


@contextlib.contextmanager
def silent(description: str, *, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    yield lambda amount: None


def test_warm_up_is_left_out_and_medians_count() -> None:
    gallery, queries, _ = sides()
    index = Slow().build(gallery)
    found = time_search(index, queries, lambda start, stop: queries[start:stop], 0.04, 5)
    assert index.asked == [40, 1, 1, 1, *[40] * timing.REPEATS, *[1] * 40]
    assert 0.002 <= found.seconds < 0.05
    assert found.busy is None or "repeats" not in found.busy
    assert found.qps == 40 / found.seconds
    assert found.qps_with_encoding == pytest.approx(40 / (found.seconds + 0.04))
    assert 2 <= found.latency_ms["p50"] < 50
    assert found.latency_ms["encode_batch"] == pytest.approx(1.0)
    assert found.latency_ms["with_encoding_batch"] == pytest.approx(1.0 + 25 * found.seconds)


def test_a_single_query_s_encoding_is_timed_apart_and_together() -> None:
    gallery, queries, _ = sides()
    encoded: list[tuple[int, int]] = []

    def encode(start: int, stop: int) -> Encoded:
        time.sleep(0.004)
        encoded.append((start, stop))
        return queries[start:stop]

    seconds = time_encoding(encode, len(queries))
    assert encoded == [(0, 40)] * (1 + timing.REPEATS)
    assert seconds >= 0.004
    encoded.clear()
    latency = time_search(FlatIndex().build(gallery), queries, encode, seconds, 5).latency_ms
    assert encoded[3:] == [(row, row + 1) for row in range(40)]
    for p in ("p50", "p95", "p99"):
        assert latency[f"encode_{p}"] >= 4
        assert latency[f"with_encoding_{p}"] >= max(latency[f"encode_{p}"], latency[p])
    assert latency["p50"] < 4


def test_a_long_batch_is_timed_once() -> None:
    calls: list[int] = []
    timing._median(lambda: calls.append(1), enough=0.0)
    assert calls == [1]
    timing._median(lambda: calls.append(1), enough=1.0)
    assert len(calls) == 1 + timing.REPEATS


def test_a_busy_machine_is_noticed_by_its_load_or_by_repeats_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(timing.os, "getloadavg", lambda: (5.0, 9.0, 9.0))
    assert timing.busy([0.1, 0.11, 0.12]) is None, "its own threads wait now and then"
    assert timing.busy([0.1, 0.11, 0.18]) == "repeats of a batch 73% apart"
    assert timing.busy([0.001, 0.002, 0.003]) is None, "too short to say anything"
    monkeypatch.setattr(timing.os, "getloadavg", lambda: (5.1, 0.0, 0.0))
    assert timing.busy([0.1]) == "load 5.1 on 4 cores"
    gallery, queries, _ = sides()
    found = time_search(FlatIndex().build(gallery), queries, lambda start, stop: queries[start:stop], 0.04, 5)
    assert str(found.busy).startswith("load 5.1 on 4 cores")


def test_the_exact_scan_is_timed_alone_and_in_a_batch_without_what_the_first_of_each_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gallery, queries, _ = sides()
    compiled: set[bool] = set()

    def slow_at_first(asked: np.ndarray, *others: object) -> Neighbors:
        if (alone := len(asked) == 1) not in compiled:
            time.sleep(0.3)  # more than the time that scans have
            compiled.add(alone)
        return search(asked, *others)

    search = timing.cosine_neighbors
    monkeypatch.setattr(timing, "cosine_neighbors", slow_at_first)
    found = time_exact_scan(gallery.features, queries.features, 5)
    assert set(found) == {"exact_p50", "exact_batch"}
    assert all(0 < value < 0.3 * 1e3 / len(queries) for value in found.values())


def test_recall_counts_what_is_there() -> None:
    exact = np.array([[1, 2, 3], [4, 5, -1]])
    assert overlap(np.array([[3, 1, 9], [5, -1, -1]]), exact, 3) == 3 / 5
    assert overlap(np.array([[3, 1, 9], [5, -1, -1]]), exact, 1) == 0


def test_every_setting_has_a_row_and_the_last_is_the_run_s() -> None:
    gallery, queries, relevance = sides()
    index = BucketsIndex(tables=[1, 3], bits_per_table=4, probes=[1, 2, 16]).build(gallery)
    from lshbench.ranking.cosine import cosine_neighbors

    reference = Reference({}, np.empty(0), np.empty(0), cosine_neighbors(queries.features, gallery.features, 100).ids)
    clock = Clock()
    made: list[Mapping[str, int]] = []
    index.set_point = lambda point, own=index.set_point: (made.append(point), own(point))  # type: ignore[method-assign]
    found = measure_points(
        index,
        Queries(queries, relevance, lambda start, stop: queries[start:stop]),
        reference,
        k=20,
        definitions=True,
        description="ranking",
        clock=clock,
        progress=silent,
    )
    assert made == index.points()
    assert [{name: row[name] for name in ("tables", "probes")} for row in found.rows] == index.points()
    assert found.point == {"tables": 3, "probes": 16}
    last = found.rows[-1]
    assert last["candidates_fraction"] == 1
    assert last["recall@10/cosine"] == 1
    assert last["mAP"] == found.evaluation.summary["metrics"]["mAP"]
    columns = found.columns()
    assert (np.diff(columns["candidates_mean"].reshape(2, 3), axis=1) >= 0).all()
    assert columns["probes"].dtype == columns["queries_without_candidates"].dtype == np.int64
    assert columns["bytes_per_item"][0] < columns["bytes_per_item"][-1]
    assert clock.seconds["search"] == found.search.seconds
    assert clock.seconds["evaluate"] > 0


def test_without_a_reference_recall_is_not_known() -> None:
    gallery, queries, relevance = sides()
    index = FlatIndex().build(gallery)
    found = measure_points(
        index,
        Queries(queries, relevance, lambda start, stop: queries[start:stop]),
        None,
        k=20,
        definitions=False,
        description="ranking",
        clock=Clock(),
        progress=silent,
    )
    assert found.point == {}
    assert len(found.rows) == 1
    assert np.isnan(found.columns()["recall@10/cosine"]).all()
    with pytest.raises(ValueError, match="FlatIndex has no query settings"):
        index.set_point({"probes": 2})


def test_the_parts_of_a_run_s_time_add_up_to_the_whole() -> None:
    clock = Clock()
    with clock.measure("fit"):
        time.sleep(0.01)
    clock.move("fit", "extract", 0.004)
    time.sleep(0.01)
    parts = clock.parts()
    assert parts["other"] >= 0.01
    assert sum(seconds for name, seconds in parts.items() if name != "total") == pytest.approx(parts["total"])
