"""Curves averaged over queries: precision over recall, P@k over k, and figures within each Hamming radius."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from lshbench.metrics.groups import Bounds, hits_within
from lshbench.metrics.radius import within_radius
from lshbench.types import RankedBlock

LEVELS = 101
"""Recall levels 0, 0.01, ..., 1."""

CELLS = 1 << 22
"""Bound on the elements of a temporary ``(queries, columns)``."""


class RecallCurve(TypedDict):
    """Interpolated precision at recall levels, averaged over queries."""

    recall: list[float]
    precision: list[float]


class RankCurve(TypedDict):
    """P@k over k, averaged over queries: expected over ties, and its bounds."""

    k: list[int]
    expected: list[float]
    optimistic: list[float]
    pessimistic: list[float]


class RadiusCurve(TypedDict):
    """Precision, recall and number of items within each Hamming radius, averaged over queries.

    ``precision`` counts a query with nothing within the radius as 0, ``precision_nonempty`` leaves it out
    (None where all are left out); ``empty`` is the share of such queries; ``items`` is the mean count.
    """

    radius: list[int]
    precision: list[float]
    precision_nonempty: list[float | None]
    recall: list[float]
    empty: list[float]
    items: list[float]


class DistanceHistogram(TypedDict):
    """Pairs of a query and a ranked gallery item by Hamming distance: sharing a label, and not."""

    distance: list[int]
    same_label: list[int]
    other_label: list[int]


class CurvesSummary(TypedDict):
    """All curves as plain lists; the last two are None for rankings by a real-valued distance."""

    precision_recall: RecallCurve
    precision_at: RankCurve
    radius: RadiusCurve | None
    distances: DistanceHistogram | None


def log_spaced_ranks(last: int = 1000, count: int = 60) -> np.ndarray:
    """Return up to ``count`` distinct ranks from 1 to ``last``, evenly spaced on a log axis, int64."""
    return np.unique(np.rint(np.geomspace(1, last, count)).astype(np.int64))


def precision_at_ranks(block: RankedBlock, ranks: np.ndarray) -> Bounds:
    """Return P@k for several k, float64 ``(q, m)`` each; ``ranks`` int64 ``(m,)``."""
    limits = np.broadcast_to(ranks, (len(block), len(ranks)))
    return Bounds(*(part / ranks for part in hits_within(block, limits)))


def interpolated_precision(block: RankedBlock, levels: int = LEVELS) -> np.ndarray:
    """Return the interpolated precision at recall levels, one curve a query.

    At recall level l it is the highest precision at that recall or a higher one, the textbook's rule.  The
    m-th relevant item, i-th of the r in its group, stands at the expected rank N0 + i (n + 1)/(r + 1), and
    the precision there is taken as m over that rank; without ties that is the textbook's precision.  Recall
    that the ranking never reaches has precision 0.

    Args:
        block: rankings of q queries.
        levels: how many levels from 0 to 1, both included; at least 2.

    Returns:
        float64 ``(q, levels)``, falling along a row.
    """
    queries, groups = len(block), len(block.before)
    if not groups:
        return np.zeros((queries, levels))
    spacing = (block.size + 1) / (block.relevant + 1)
    last = block.relevant_before + block.relevant
    at_last = last / (block.before + block.relevant * spacing)
    # Inside a group the precision is monotonous, so that its highest value is at one end.
    best = np.maximum((block.relevant_before + 1) / (block.before + spacing), at_last)

    total = block.total_relevant[:, None]
    wanted = np.maximum(-(-np.arange(levels) * total // (levels - 1)), 1)  # relevant items needed for a level
    start, stop = block.offsets[:-1, None], block.offsets[1:, None]
    # Running counts over the whole block find the group of each wanted item in one search.
    running = np.cumsum(block.relevant)
    base = np.concatenate([[0], running])[block.offsets[:-1], None]
    group = np.searchsorted(running, base + wanted)
    reached = group < stop
    group = np.where(reached, group, 0)
    position = block.before[group] + (wanted - block.relevant_before[group]) * spacing[group]
    precision = np.maximum(wanted / position, at_last[group])

    # The best of all later groups: maxima between the groups of neighbouring levels, then a running maximum backwards.
    later = np.where(reached, group + 1, np.maximum(stop, start))
    following = np.concatenate([later[:, 1:], stop], axis=1)
    between = np.maximum.reduceat(np.append(best, 0.0), later.ravel()).reshape(later.shape)
    between[later == following] = 0.0  # reduceat returns an element for an empty slice
    highest = np.where(reached, np.maximum(precision, between), 0.0)
    return np.maximum.accumulate(highest[:, ::-1], axis=1)[:, ::-1]


class CurveAccumulator:
    """Accumulator of curves over blocks of queries.

    Example:
        >>> curves = CurveAccumulator()
        >>> for block in blocks:  # doctest: +SKIP
        ...     curves.add(block)
        >>> curves.summary()["precision_recall"]["precision"]  # doctest: +SKIP
    """

    def __init__(self, ranks: np.ndarray | None = None, levels: int = LEVELS) -> None:
        self.ranks = log_spaced_ranks() if ranks is None else ranks
        self.queries = 0
        self._recall = np.zeros(levels)
        self._precision_at = np.zeros((3, len(self.ranks)))
        self._radius: np.ndarray | None = None  # rows: precision, recall, empty, items, hits

    def add(self, block: RankedBlock) -> None:
        """Add a block of queries; either all blocks have Hamming counts or none has."""
        queries = len(block)
        self.queries += queries
        self._recall += interpolated_precision(block, len(self._recall)).sum(axis=0)
        self._precision_at += [part.sum(axis=0) for part in precision_at_ranks(block, self.ranks)]
        if block.within is None:
            return
        columns = block.within.shape[1]
        if self._radius is None:
            self._radius = np.zeros((5, columns))
        width = max(1, CELLS // max(queries, 1))
        for start in range(0, columns, width):
            radii = np.arange(start, min(start + width, columns))
            found = within_radius(block, radii)
            empty = found.items == 0
            parts = (found.precision, found.recall, empty, found.items, found.hits)
            self._radius[:, radii] += [part.sum(axis=0) for part in parts]

    def summary(self) -> CurvesSummary:
        """Return the means over all queries added; at least one must have been."""
        expected, optimistic, pessimistic = (self._precision_at / self.queries).tolist()
        return {
            "precision_recall": {
                "recall": np.linspace(0, 1, len(self._recall)).tolist(),
                "precision": (self._recall / self.queries).tolist(),
            },
            "precision_at": {
                "k": self.ranks.tolist(),
                "expected": expected,
                "optimistic": optimistic,
                "pessimistic": pessimistic,
            },
            "radius": None if self._radius is None else self._radius_curve(self._radius),
            "distances": None if self._radius is None else self._distances(self._radius),
        }

    def _radius_curve(self, sums: np.ndarray) -> RadiusCurve:
        precision, recall, empty, items, _ = sums
        counted = self.queries - empty
        return {
            "radius": list(range(len(precision))),
            "precision": (precision / self.queries).tolist(),
            "precision_nonempty": [
                float(total / count) if count else None for total, count in zip(precision, counted, strict=True)
            ],
            "recall": (recall / self.queries).tolist(),
            "empty": (empty / self.queries).tolist(),
            "items": (items / self.queries).tolist(),
        }

    @staticmethod
    def _distances(sums: np.ndarray) -> DistanceHistogram:
        items, hits = np.diff(sums[3:], axis=1, prepend=0).astype(np.int64)
        return {
            "distance": list(range(len(items))),
            "same_label": hits.tolist(),
            "other_label": (items - hits).tolist(),
        }
