"""Operations that the metrics share: sums per query, the group that holds a rank, and differences of harmonic numbers.

Notation of this package, for one query: the groups of equal distance are t = 1, 2, ...; group t has ``n``
items, ``r`` of them relevant; ``N0`` items and ``R0`` relevant ones are ranked before it.  R is the number of
relevant items in the gallery.

One rule covers rankings that stop early, as those of hash tables and clusters do: an item that was not ranked
counts as never retrieved.  It adds nothing to any numerator, and no denominator is made smaller for it (R
counts the whole gallery, P@k divides by k), unless the name of a definition says so.
A query without any relevant item in the gallery scores 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lshbench.types import RankedBlock

CHUNK = 1 << 14
"""Groups worked on at a time: the temporaries of a chunk stay in the second-level cache."""

_TABLE = 64
_SMALL_HARMONIC = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, _TABLE + 1))])


class Bounds(NamedTuple):
    """Expectation and bounds of a measure over all orders of tied items.

    Attributes:
        expected: mean over a random order, float64 ``(q,)``.
        optimistic: relevant items first within each tie, float64 ``(q,)``.
        pessimistic: relevant items last within each tie, float64 ``(q,)``.
    """

    expected: np.ndarray
    optimistic: np.ndarray
    pessimistic: np.ndarray

    def over(self, denominator: np.ndarray | float) -> Bounds:
        """Return the three divided by a denominator, 0 where that is 0."""
        return Bounds(*(ratio(part, denominator) for part in self))


def ratio(numerator: np.ndarray, denominator: np.ndarray | float) -> np.ndarray:
    """Return ``numerator / denominator`` as float64, 0 where the denominator is 0."""
    bottom = np.broadcast_to(np.asarray(denominator, np.float64), np.shape(numerator))
    return np.divide(numerator, bottom, out=np.zeros(np.shape(numerator)), where=bottom != 0)


def segment_sums(values: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Return the sums of ``values[starts[i]:stops[i]]``, 0 for an empty slice.

    Slices ascend and don't overlap.  A sum depends on its slice only, not on its neighbours, so that results
    don't depend on how queries are blocked.
    """
    sums = np.zeros(len(starts), np.result_type(values.dtype, np.int64))
    filled = np.flatnonzero(stops > starts)
    if filled.size:
        starts, stops = starts[filled], stops[filled]
        if np.array_equal(starts[1:], stops[:-1]) and stops[-1] == len(values):
            sums[filled] = np.add.reduceat(values, starts, dtype=sums.dtype)
        else:
            edges = np.stack([starts, stops], axis=1).ravel()
            # reduceat runs to the end after its last edge, and takes no edge there.
            edges = edges[:-1] if edges[-1] == len(values) else edges
            sums[filled] = np.add.reduceat(values, edges, dtype=sums.dtype)[::2]
    return sums


def query_sums(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the sum of each query's values; ``offsets`` int64 ``(q + 1,)``."""
    return segment_sums(values, offsets[:-1], offsets[1:])


def count_below(values: np.ndarray, offsets: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Count, for each query, those of its values that are below a limit.

    Bisects all queries at once: O(q m log g) whatever the number of groups, where a comparison would read them all.

    Args:
        values: ascending within each query.
        offsets: int64 ``(q + 1,)``.
        limits: ``(q,)``, or ``(q, m)`` for several limits a query.

    Returns:
        int64, shaped as ``limits``.
    """
    shape = (-1,) + (1,) * (limits.ndim - 1)
    first = offsets[:-1].reshape(shape)
    low = np.broadcast_to(first, limits.shape).astype(np.int64)
    high = np.broadcast_to(offsets[1:].reshape(shape), limits.shape).astype(np.int64)
    longest = int(np.max(np.diff(offsets), initial=0))
    last = max(len(values) - 1, 0)
    for _ in range(longest.bit_length()):
        middle = (low + high) >> 1
        unsettled = low < high
        below = unsettled & (values[np.minimum(middle, last)] < limits)
        np.copyto(low, middle + 1, where=below)
        np.copyto(high, middle, where=unsettled & ~below)
    return low - first


def leading_indices(offsets: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where the first ``counts[i]`` elements of each query lie, and their own offsets."""
    kept = np.concatenate([[0], np.cumsum(counts)])
    return np.arange(kept[-1]) + np.repeat(offsets[:-1] - kept[:-1], counts), kept


def leading_groups(block: RankedBlock, cutoff: int) -> RankedBlock:
    """Return the groups that begin within the first ``cutoff`` ranks (without positions)."""
    counts = count_below(block.before, block.offsets, np.full(len(block), cutoff))
    if counts.sum() == len(block.before):
        return block
    rows, offsets = leading_indices(block.offsets, counts)
    return RankedBlock(
        offsets=offsets,
        before=block.before[rows],
        relevant_before=block.relevant_before[rows],
        size=block.size[rows],
        relevant=block.relevant[rows],
        total_relevant=block.total_relevant,
        ranked=block.ranked,
    )


def hits_within(block: RankedBlock, cutoff: int | np.ndarray) -> Bounds:
    """Return how many relevant items stand within the first ranks.

    Whole groups count ``r``; of the group that the cut-off k splits, ``m = min(n, k - N0)`` items are inside, of which
    ``m r / n`` are expected to be relevant, at most ``min(r, m)`` and at least ``max(0, m - (n - r))``.

    Args:
        block: rankings of q queries.
        cutoff: one rank, or int64 ``(q,)`` or ``(q, m)``, one or several for each query.

    Returns:
        float64 arrays, ``(q,)`` or ``(q, m)``.
    """
    limits = np.full(len(block), cutoff) if isinstance(cutoff, int) else cutoff
    counts = count_below(block.before, block.offsets, limits)
    shape = (-1,) + (1,) * (limits.ndim - 1)
    if not len(block.before):
        zeros = np.zeros(limits.shape)
        return Bounds(zeros, zeros, zeros)
    # Queries with nothing before the cut-off read some group, and are set to 0 below.
    group = np.maximum(block.offsets[:-1].reshape(shape) + counts - 1, 0)
    size, relevant = block.size[group], block.relevant[group]
    found, inside = block.relevant_before[group], np.minimum(size, limits - block.before[group])
    some = counts > 0
    return Bounds(
        np.where(some, found + inside * relevant / size, 0.0),
        np.where(some, found + np.minimum(relevant, inside), 0).astype(np.float64),
        np.where(some, found + np.maximum(inside - (size - relevant), 0), 0).astype(np.float64),
    )


def retrieved(block: RankedBlock) -> np.ndarray:
    """Return how many relevant items each query ranks at all, int64 ``(q,)``."""
    counts = np.zeros(len(block), np.int64)
    some = np.flatnonzero(np.diff(block.offsets))
    last = block.offsets[1:][some] - 1
    counts[some] = block.relevant_before[last] + block.relevant[last]
    return counts


def harmonic_difference(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Return H(stop) - H(start) = 1/(start+1) + ... + 1/stop, with the *difference* right to some 1e-15.

    Subtracting two table entries would lose it: at rank a million an entry's last bit is 1e-15, and the
    formulae that use the difference multiply it by the rank.  Above 64, with x = m + 1/2,

        H(m) = Euler's constant + ln x + 1/(24 x^2) - 7/(960 x^4) + 31/(8064 x^6) - ...

    so that the difference is a ``log1p`` and a small correction.  Below, a table serves.

    Args:
        start, stop: whole numbers, ``(m,)``, 0 <= start <= stop, any numeric type.
    """
    low = np.maximum(start, _TABLE) + 0.5
    high = np.maximum(stop, _TABLE) + 0.5
    difference = _harmonic_correction(high)
    difference -= _harmonic_correction(low)
    high -= low
    high /= low
    difference += np.log1p(high, out=high)
    early = np.flatnonzero(start < _TABLE)
    if early.size:
        first, last = start[early].astype(np.intp), np.minimum(stop[early], _TABLE).astype(np.intp)
        difference[early] += _SMALL_HARMONIC[last] - _SMALL_HARMONIC[first]
    return difference


def _harmonic_correction(x: np.ndarray) -> np.ndarray:
    inverse = x * x
    np.divide(1.0, inverse, out=inverse)
    series = inverse * (-31 / 8064)
    series += 7 / 960
    series *= inverse
    np.subtract(1 / 24, series, out=series)
    series *= inverse
    return series
