"""Average precision under ties, in closed form.

AP = 1/R * the sum, over relevant items, of the precision at the item's rank.  Over a random order of the
items of each group of ties (McSherry & Najork 2008, "Computing information retrieval performance measures
efficiently in the presence of tied scores"; used for hashing by He et al. 2018, arXiv 1705.08562), with
D(a, b) = H(b) - H(a) and the notation of :mod:`lshbench.metrics.groups`:

    expected     sum_t  r/n * [ (R0 + 1) D + (r - 1)/(n - 1) * (n - (N0 + 1) D) ],   D = D(N0, N0 + n)
    optimistic   sum_t  r + (R0 - N0) * D(N0, N0 + r)
    pessimistic  sum_t  r + (R0 - N0 - n + r) * D(N0 + n - r, N0 + n)

all divided by R.  The bounds put relevant items first, or last, in each group.  With a cut-off k, the sums
run over the ranks up to k; the group that k splits contributes its first m = min(n, k - N0) ranks.
Without ties all three are (R0 + 1)/(N0 + 1), the textbook's AP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lshbench.metrics.groups import CHUNK, Bounds, count_below, harmonic_difference, query_sums, ratio, segment_sums
from lshbench.types import RankedBlock


def average_precision(block: RankedBlock, cutoff: int | None = None) -> Bounds:
    """Return AP over all relevant items: the sum of precisions (up to the cut-off) divided by R.

    This is trec_eval's ``map`` (``map_cut`` with a cut-off).
    """
    return precision_sums(block, () if cutoff is None else (cutoff,))[-1].over(block.total_relevant)


def precision_sums(block: RankedBlock, cutoffs: Sequence[int] = ()) -> list[Bounds]:
    """Return the sums of the precisions at the relevant items: AP before any division.

    Args:
        block: rankings of q queries.
        cutoffs: further sums that count ranks 1 to k only.

    Returns:
        float64 ``(q,)`` each: over all ranks first, then for each cut-off.
    """
    values = _group_sums(block)
    result = [values.over(block.offsets[:-1], block.offsets[1:])]
    start = block.offsets[:-1]
    for cutoff in cutoffs:
        counts = count_below(block.before, block.offsets, np.full(len(block), cutoff))
        reached = np.flatnonzero(counts)
        group = start[reached] + counts[reached] - 1  # the last that begins before the cut-off; it may reach beyond
        crossing = block.before[group] + block.size[group] > cutoff
        stop = start + counts
        stop[reached[crossing]] -= 1
        sums = values.over(start, stop)
        if crossing.any():
            # Not "whole group - what is beyond": its sum may dwarf what stays, and leave its rounding.
            for total, part in zip(sums, _tied_sums(block, group[crossing], cutoff), strict=True):
                total[reached[crossing]] += part
        result.append(sums)
    return result


class _GroupSums(NamedTuple):
    """Each group's sum of precisions: the expected one, and how far the bounds of tied groups lie from it.

    Most groups of a real-valued ranking are single items, which have no bounds of their own to be stored or added up.

    Attributes:
        expected: float64 ``(g,)``.
        tied: int64 ``(t,)``, the groups of two or more items, ascending.
        above: float64 ``(t,)``, optimistic minus expected.
        below: float64 ``(t,)``, expected minus pessimistic.
    """

    expected: np.ndarray
    tied: np.ndarray
    above: np.ndarray
    below: np.ndarray

    def over(self, starts: np.ndarray, stops: np.ndarray) -> Bounds:
        """Return the sums over groups ``starts[i]`` to ``stops[i]``, float64 ``(q,)`` each."""
        expected = segment_sums(self.expected, starts, stops)
        first, last = np.searchsorted(self.tied, starts), np.searchsorted(self.tied, stops)
        return Bounds(
            expected, expected + segment_sums(self.above, first, last), expected - segment_sums(self.below, first, last)
        )


def _group_sums(block: RankedBlock) -> _GroupSums:
    groups = len(block.before)
    expected = np.empty(groups)
    denominator = np.empty(min(groups, CHUNK))
    tied = np.flatnonzero(block.size > 1)
    if len(tied) < groups:
        for start in range(0, groups, CHUNK):
            rows = slice(start, min(start + CHUNK, groups))
            # As float64 from the start, which is twice as fast as adding and dividing whole numbers.
            numerator, rank = expected[rows], denominator[: rows.stop - start]
            numerator[:] = block.relevant_before[rows]
            numerator += 1.0
            rank[:] = block.before[rows]
            rank += 1.0
            numerator /= rank
    above, below = np.empty(len(tied)), np.empty(len(tied))
    for start in range(0, len(tied), CHUNK):
        rows = slice(start, min(start + CHUNK, len(tied)))
        # A view where all are tied (Hamming distances), a selection where few are (real-valued ones).
        chosen = rows if len(tied) == groups else tied[rows]
        mean, best, worst = _tied_sums(block, chosen)
        expected[chosen] = mean
        np.subtract(best, mean, out=above[rows])
        np.subtract(mean, worst, out=below[rows])
    return _GroupSums(expected, tied, above, below)


def _tied_sums(block: RankedBlock, rows: slice | np.ndarray, cutoff: int | None = None) -> Bounds:
    """Return the sums of precisions of groups of two or more items, up to the cut-off."""
    # Whole numbers below 2**53 are exact as float64, and need not be converted again in each operation.
    before, found, size, relevant = (
        part[rows].astype(np.float64) for part in (block.before, block.relevant_before, block.size, block.relevant)
    )
    irrelevant = size - relevant
    inside, first, last = size, relevant, relevant
    if cutoff is not None:
        inside = np.minimum(size, cutoff - before)
        first = np.minimum(relevant, inside)
        last = np.maximum(inside - irrelevant, 0.0)

    difference = harmonic_difference(before, before + inside)
    expected = inside - (before + 1.0) * difference
    expected *= (relevant - 1.0) / (size - 1.0)
    expected += (found + 1.0) * difference
    expected *= relevant / size

    optimistic = first + (found - before) * harmonic_difference(before, before + first)
    skipped = before + irrelevant
    pessimistic = last + (found - skipped) * harmonic_difference(skipped, skipped + last)
    return Bounds(expected, optimistic, pessimistic)


def trapezoid_precision(block: RankedBlock, sums: np.ndarray) -> np.ndarray:
    """Return the expected AP by the trapezoid rule, as the (revisited) Oxford and Paris code computes it.

    The relevant item at rank p, with f relevant ones before it, contributes ``(f/(p - 1) + (f + 1)/p) / 2``,
    where ``f/(p - 1)`` is 1 at rank 1; the sum is divided by R.  The second half is AP.  The expectation of
    the first is, with c = (r - 1)/(n - 1),

        r/n * [ c n + (R0 - c N0) * D(N0 - 1, N0 + n - 1) ]      for N0 > 0
        r/n * [ 1 + c (n - 1) ] = r * r / n                      for N0 = 0

    Args:
        block: rankings of q queries.
        sums: the expected sums over all ranks that :func:`precision_sums` gives.
    """
    values = np.empty(len(block.before))
    for start in range(0, len(values), CHUNK):
        rows = slice(start, start + CHUNK)
        before, found, size, relevant = (
            part[rows].astype(np.float64) for part in (block.before, block.relevant_before, block.size, block.relevant)
        )
        if size.max() > 1:
            slope = (relevant - 1.0) / np.maximum(size - 1.0, 1.0)
            lowest = np.maximum(before - 1.0, 0.0)
            inner = slope * size + (found - slope * before) * harmonic_difference(lowest, lowest + size)
            values[rows] = np.where(before > 0, inner, relevant) * relevant / size
        else:
            values[rows] = np.where(before > 0, found / np.maximum(before, 1.0), 1.0)
    return ratio(query_sums(values, block.offsets) + sums, 2.0 * block.total_relevant)
