"""Trade-off of an index: what it finds and what it costs at each of its query settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np

from lshbench.evaluation.evaluate import Evaluation, evaluate
from lshbench.evaluation.reference import Reference
from lshbench.evaluation.timing import Clock, Encode, SearchTime, time_encoding, time_search
from lshbench.index.base import Index
from lshbench.metrics.measures import AP_CUTOFFS
from lshbench.ranking.listed import first_kept
from lshbench.types import Encoded, Progress, Relevance

HEADLINE = ("mAP", "P@10", "P@50")


@dataclass(frozen=True)
class Queries:
    """Encoded queries, and what is relevant to them.

    Attributes:
        encoded: all of them.
        relevance: of the gallery to them.
        encode: encodes them again, from one row to another, so that this can be timed.
    """

    encoded: Encoded
    relevance: Relevance
    encode: Encode


@dataclass(frozen=True)
class Cost:
    """Candidates of a search, as means over queries.

    Attributes:
        candidates_mean: gallery items compared with a query.
        candidates_fraction: the same as a share of the gallery.
        queries_without_candidates: queries that nothing was compared with.
    """

    candidates_mean: float
    candidates_fraction: float
    queries_without_candidates: int

    @classmethod
    def of(cls, candidates: np.ndarray, gallery: int) -> Cost:
        """Return the cost of searches, given each query's number of candidates, int64 ``(q,)``."""
        mean = float(candidates.mean())
        return cls(mean, float(candidates.mean() / gallery), int((candidates == 0).sum()))


@dataclass(frozen=True)
class Measured:
    """Measurements of an index: all of them at its most thorough query settings, and a row for each setting.

    Attributes:
        point: the last settings.
        search: results and times with them.
        evaluation: the rankings' measures and curves with them.
        cost: candidates with them.
        recall: share of the first ten by exact cosine that were found with them; None without a reference.
        rows: of all settings, in order (:meth:`lshbench.run_folder.RunFolder.write_tradeoff`).
    """

    point: dict[str, int]
    search: SearchTime
    evaluation: Evaluation
    cost: Cost
    recall: float | None
    rows: list[dict[str, float | int | None]]

    def columns(self) -> dict[str, np.ndarray]:
        """Return the rows as columns; what isn't known is NaN."""
        return {name: _column([row[name] for row in self.rows]) for name in self.rows[0]}


def measure_points(
    index: Index,
    queries: Queries,
    reference: Reference | None,
    *,
    k: int,
    definitions: bool,
    description: str,
    clock: Clock,
    progress: Progress,
) -> Measured:
    """Time, rank and evaluate a built index at each of its query settings; the last ones stay in effect.

    Args:
        index: built.
        queries: encoded, with what is relevant to them.
        reference: exact cosine ranking, if known.
        k: results to keep for each query; timed are those, and as many more as are left out of a ranking.
        definitions: whether the last ranking keeps positions, which some published definitions need.
        description: of the ranking, for ``progress``.
        clock: gets the seconds of ``search`` (the last settings' batch), of ``timing`` (all else that is timed) and of
            ``evaluate``.
        progress: reports the queries ranked.
    """
    points, number = index.points(), len(queries.encoded)
    asked = min(k + queries.relevance.most_left_out, len(index))
    gallery = len(queries.relevance.gallery)
    with clock.measure("timing"):
        encode_seconds = time_encoding(queries.encode, number)
    rows: list[dict[str, float | int | None]] = []
    for point in points:
        index.set_point(point)
        last = len(rows) == len(points) - 1
        with clock.measure("timing"):
            search = time_search(index, queries.encoded, queries.encode, encode_seconds, asked)
            search = replace(search, neighbors=first_kept(search.neighbors, queries.relevance, min(k, len(index))))
        with clock.measure("evaluate"):
            positions = max(AP_CUTOFFS) if definitions and last else 0
            blocks = index.rank(queries.encoded, queries.relevance, positions=positions)
            settings = ", ".join(f"{name}={value}" for name, value in point.items())
            label = description if len(points) == 1 else f"{description}, {settings}"
            evaluation = evaluate(blocks, number, progress, label)
        metrics = evaluation.summary["metrics"]
        recall = overlap(search.neighbors.ids, reference.neighbors, 10) if reference else None
        cost = Cost.of(search.neighbors.candidates, gallery)
        rows.append(
            {
                **point,
                **{name: metrics[name] for name in HEADLINE},
                "recall@10/cosine": recall,
                **asdict(cost),
                "qps": search.qps,
                "qps_with_encoding": search.qps_with_encoding,
                **{f"latency_ms/{name}": value for name, value in search.latency_ms.items()},
                "bytes_per_item": index.bytes_per_item(),
            }
        )
    clock.move("timing", "search", search.seconds)
    return Measured(points[-1], search, evaluation, cost, recall, rows)


def overlap(found: np.ndarray, exact: np.ndarray, k: int) -> float:
    """Return the share of the exact first ``k`` rows that are among the first ``k`` found, averaged over queries."""
    exact = exact[:, :k]
    hits = (found[:, :k, None] == exact[:, None, :]).any(axis=1)
    return float((hits & (exact >= 0)).sum() / (exact >= 0).sum())


def _column(values: list[float | int | None]) -> np.ndarray:
    if all(isinstance(value, int) for value in values):
        return np.array(values, np.int64)
    return np.array([np.nan if value is None else value for value in values], np.float64)
