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

import numpy as np

from lshbench.metrics.groups import (
    CHUNK,
    Bounds,
    count_below,
    harmonic_difference,
    query_sums,
    ratio,
    segment_sums,
)
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
    distinct = values[:1] if values[0] is values[1] else values
    result = [_bounds([query_sums(part, block.offsets) for part in distinct])]
    start = block.offsets[:-1]
    for cutoff in cutoffs:
        counts = count_below(block.before, block.offsets, np.full(len(block), cutoff))
        split = np.maximum(counts - 1, 0)  # the last group that begins before the cut-off may reach beyond it
        sums = [segment_sums(part, start, start + split) for part in distinct]
        reached = np.flatnonzero(counts)
        group = (start + split)[reached]
        for total, part in zip(sums, distinct, strict=True):
            total[reached] += part[group]
        crossing = np.flatnonzero(block.before[group] + block.size[group] > cutoff)
        if crossing.size:
            group, reached = group[crossing], reached[crossing]
            for total, whole, part in zip(sums, distinct, _tied_sums(block, group, cutoff), strict=True):
                # Not "total - whole + part": the whole group's sum may dwarf what stays, and leave its
                # rounding.
                total[reached] = segment_sums(whole, start[reached], group) + part
        result.append(_bounds(sums))
    return result


def _bounds(parts: list[np.ndarray]) -> Bounds:
    return Bounds(*(parts * 3 if len(parts) == 1 else parts))


def _group_sums(block: RankedBlock) -> Bounds:
    """Return each group's sum of precisions, float64 ``(g,)``; one array three times if nothing is tied."""
    groups = len(block.before)
    expected = np.empty(groups)
    bounds: tuple[np.ndarray, np.ndarray] | None = None
    for start in range(0, groups, CHUNK):
        rows = slice(start, min(start + CHUNK, groups))
        np.divide(block.relevant_before[rows] + 1, block.before[rows] + 1, out=expected[rows])
        tied = np.flatnonzero(block.size[rows] > 1)
        if tied.size and bounds is None:
            bounds = expected.copy(), expected.copy()
        if bounds is None:
            continue
        for bound in bounds:
            bound[rows] = expected[rows]
        if tied.size:
            # A view where all are tied (Hamming distances), a selection where few are (real-valued ones).
            chosen = rows if len(tied) == rows.stop - start else tied + start
            expected[chosen], bounds[0][chosen], bounds[1][chosen] = _tied_sums(block, chosen)
    return Bounds(expected, *(bounds or (expected, expected)))


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
