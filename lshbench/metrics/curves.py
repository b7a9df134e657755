"""Curves averaged over queries: precision over recall, P@k over k, and histograms of Hamming distances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lshbench.metrics.groups import Bounds, hits_within
from lshbench.types import RankedBlock

LEVELS = 101
"""Recall levels 0, 0.01, ..., 1."""

CELLS = 1 << 22
"""Bound on the elements of a temporary ``(queries, columns)``."""


@dataclass(frozen=True)
class Curves:
    """Curves averaged over queries, which the plots draw.

    Attributes:
        recall: float64 ``(r,)``, ascending recall levels from 0 to 1.
        precision: float64 ``(r,)``, mean precision over queries at those levels.
        k: int64 ``(m,)``, ascending lengths of the result list.
        precision_at_k: float64 ``(m,)``, mean precision of the first ``k`` results, expected over ties.
        precision_at_k_bounds: float64 ``(2, m)``, the pessimistic and the optimistic one, or None.
        distance_edges: float64 ``(b + 1,)``, edges of distance bins; -0.5, 0.5, ... for Hamming distances;
            None where distances were not counted.
        same_class: int64 ``(b,)``, pairs of a query and a gallery item of its class in each bin, or None.
        other_class: int64 ``(b,)``, the same for pairs of different classes, or None.
        bit_means: float64 ``(bits,)``, the share of gallery items whose bit is set; None without codes.
        reference_precision: as ``precision``, for exact cosine ranking of the features, or None.
        reference_precision_at_k: as ``precision_at_k``, for exact cosine ranking, or None.
        classifier_precision: as ``precision``, for ranking by a classifier's probabilities, or None.
        classifier_precision_at_k: as ``precision_at_k``, likewise, or None.
    """

    recall: np.ndarray
    precision: np.ndarray
    k: np.ndarray
    precision_at_k: np.ndarray
    precision_at_k_bounds: np.ndarray | None = None
    distance_edges: np.ndarray | None = None
    same_class: np.ndarray | None = None
    other_class: np.ndarray | None = None
    bit_means: np.ndarray | None = None
    reference_precision: np.ndarray | None = None
    reference_precision_at_k: np.ndarray | None = None
    classifier_precision: np.ndarray | None = None
    classifier_precision_at_k: np.ndarray | None = None


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
    """Accumulator of curves over blocks of queries: :meth:`add` each, then ask for the :meth:`means`."""

    def __init__(self, ranks: np.ndarray | None = None, levels: int = LEVELS) -> None:
        self.ranks = log_spaced_ranks() if ranks is None else ranks
        self.queries = 0
        self._recall = np.zeros(levels)
        self._precision_at = np.zeros((3, len(self.ranks)))
        self._within: np.ndarray | None = None  # items, and relevant ones, within each Hamming radius

    def add(self, block: RankedBlock) -> None:
        """Add a block of queries; either all blocks have Hamming counts or none has."""
        queries = len(block)
        self.queries += queries
        self._recall += interpolated_precision(block, len(self._recall)).sum(axis=0)
        self._precision_at += [part.sum(axis=0) for part in precision_at_ranks(block, self.ranks)]
        if block.within is None:
            return
        columns = block.within.shape[1]
        if self._within is None:
            self._within = np.zeros((2, columns))
        width = max(1, CELLS // max(queries, 1))
        for start in range(0, columns, width):
            part = slice(start, start + width)
            items = block.within[:, part].astype(np.int64, copy=False)
            self._within[:, part] += [items.sum(axis=0), hits_within(block, items).expected.sum(axis=0)]

    def means(self) -> Curves:
        """Return the curves over all queries added; at least one must have been."""
        expected, optimistic, pessimistic = self._precision_at / self.queries
        counted: dict[str, np.ndarray] = {}
        if self._within is not None:
            items, same = np.diff(self._within, axis=1, prepend=0).astype(np.int64)
            edges = np.arange(len(items) + 1) - 0.5
            counted = {"distance_edges": edges, "same_class": same, "other_class": items - same}
        return Curves(
            recall=np.linspace(0, 1, len(self._recall)),
            precision=self._recall / self.queries,
            k=self.ranks,
            precision_at_k=expected,
            precision_at_k_bounds=np.stack([pessimistic, optimistic]),
            **counted,
        )
