"""An index at each of its query settings: what it finds against what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lshbench.evaluation.evaluate import Evaluation, evaluate
from lshbench.evaluation.reference import Reference
from lshbench.evaluation.timing import Clock, Encode, SearchTime, time_encoding, time_search
from lshbench.index.base import Index
from lshbench.types import Encoded, Progress, Relevance


@dataclass(frozen=True)
class Measured:
    """An index at its last, most thorough point, and a row for each of its points.

    Attributes:
        point: the query settings of the last one.
        search: its time and results.
        evaluation: its figures.
        rows: of every point, in order: its settings, mAP, P@10, P@50, recall@10/cosine, and what it cost.
    """

    point: dict[str, int]
    search: SearchTime
    evaluation: Evaluation
    rows: list[dict[str, float | int | None]]

    def columns(self) -> dict[str, np.ndarray]:
        """Return the rows as columns; what isn't known is NaN."""
        return {name: _column([row[name] for row in self.rows]) for name in self.rows[0]}


def measure_points(
    index: Index,
    queries: Encoded,
    relevance: Relevance,
    encode: Encode,
    reference: Reference | None,
    *,
    k: int,
    positions: bool,
    position_limit: int,
    description: str,
    clock: Clock,
    progress: Progress,
) -> Measured:
    """Time, rank and evaluate a built index at each of its points; the last one stays in effect.

    Args:
        index: built.
        queries: encoded.
        relevance: labels of both sides.
        encode: what encoded the queries, from one row to another.
        reference: exact cosine ranking, if known.
        k: first results to time.
        positions, position_limit: what the last point's ranking is asked for (:meth:`lshbench.index.base.Index.rank`).
        description: what is being ranked.
        clock: told about searching (the last point's batch) and evaluating.
        progress: told about the rankings.
    """
    points = index.points()
    encode_seconds = time_encoding(encode, len(queries))
    rows: list[dict[str, float | int | None]] = []
    for number, point in enumerate(points):
        index.set_point(point)
        last = number == len(points) - 1
        search = time_search(index, queries, encode, encode_seconds, k)
        with clock.measure("evaluate"):
            blocks = index.rank(
                queries, relevance, positions=positions and last, position_limit=position_limit if last else None
            )
            settings = ", ".join(f"{name}={value}" for name, value in point.items())
            label = description if len(points) == 1 else f"{description}, {settings}"
            evaluation = evaluate(blocks, len(queries), progress, label)
        gallery = len(relevance.gallery)
        rows.append({**point, **_row(search, evaluation.summary["metrics"], reference, gallery, index.bytes)})
    clock.add("search", search.seconds)
    return Measured(points[-1], search, evaluation, rows)


def overlap(found: np.ndarray, exact: np.ndarray, k: int) -> float:
    """Return the share of the exact first ``k`` rows that are among the first ``k`` found, averaged over queries."""
    exact = exact[:, :k]
    hits = (found[:, :k, None] == exact[:, None, :]).any(axis=1)
    return float((hits & (exact >= 0)).sum() / (exact >= 0).sum())


def _row(
    search: SearchTime, metrics: Mapping[str, float | None], reference: Reference | None, gallery: int, size: int
) -> dict[str, float | int | None]:
    candidates = search.neighbors.candidates
    return {
        **{name: metrics[name] for name in ("mAP", "P@10", "P@50")},
        "recall@10/cosine": overlap(search.neighbors.ids, reference.neighbors, 10) if reference else None,
        "candidates_mean": float(candidates.mean()),
        "candidates_fraction": float(candidates.mean() / gallery),
        "queries_without_candidates": int((candidates == 0).sum()),
        "qps": search.qps,
        "qps_with_encoding": search.qps_with_encoding,
        **{f"latency_ms/{name}": value for name, value in search.latency_ms.items()},
        "bytes_per_item": size / gallery,
    }


def _column(values: list[float | int | None]) -> np.ndarray:
    if all(isinstance(value, int) for value in values):
        return np.array(values, np.int64)
    return np.array([np.nan if value is None else value for value in values], np.float64)
