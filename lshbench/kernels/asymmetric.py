"""Kernels of :mod:`lshbench.ranking.asymmetric_codes`: complete rankings, by a counting sort of distances.

Distances (:mod:`lshbench.kernels.asymmetric_sums`) are whole numbers below 2^24, so that a ranking can be counted
instead of sorted: into bins by their high bits, and only where a bin has relevant items, by all bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lshbench.kernels.asymmetric_sums import fill_sums, fill_table, make_table
from lshbench.kernels.compilation import kernel
from lshbench.kernels.frames import (
    Int32Vector,
    UInt16Vector,
    UInt32Cube,
    UInt32Matrix,
    UInt32Vector,
    UInt64Vector,
    borrowed,
)
from lshbench.kernels.keys import order_of, row_of, sort_key
from lshbench.kernels.labels import Labels, relevant_rows
from lshbench.kernels.lanes import WINDOW, count_in_window
from lshbench.kernels.threads import own_part, threaded_kernel

LOW_BITS = 11
"""Bits of a distance that are compared only among items that share the others, the high bits."""

BINS = 1 << (24 - LOW_BITS)
LOW_BINS = 1 << LOW_BITS

SPARSE = 16
"""Bins get equal rooms where relevant items are at most one in this many."""

ROOM = 4
"""How many times the gallery fits into the equal rooms that bins get before it is known how many items they have."""

LINE = 32
"""How many items' low bits a line of the cache holds."""

MANY = 1 << 16
"""Comparisons in one bin above which its items are counted by their low bits instead."""

WIDE = 256
"""Items of a bin up to which that isn't considered."""

DIGIT, SMALL_DIGIT = 12, 8
"""Bits by which distances are sorted at a time, where they are many and where they are few."""

FEW_KEYS = 2048
"""Keys up to which they are few."""

ZERO, ONE = np.uint32(0), np.uint32(1)
HIGH, LOW = np.uint32(LOW_BITS), np.uint32(LOW_BINS - 1)
FEW = np.int64(0xFFFF)


class Scratch(NamedTuple):
    """Scratch memory of one thread, for queries with up to ``r`` relevant items of ``n``."""

    table: UInt32Cube  # (2 bytes, 16, queries)
    sums: UInt32Matrix  # (queries, n), distances of eight or sixteen queries
    bins: UInt32Vector  # (BINS,), where each begins in `ordered`, and where it ends once it is filled
    starts: UInt32Vector  # (BINS + 1,), how many items are in the bins before each
    # Low bits of distances by bin, rows ascending in each: (n + WINDOW,) if positions are asked for, and else, as bins
    # may have more room than they need, ((1 + ROOM) n + WINDOW,).
    ordered: UInt16Vector
    ordered_rows: Int32Vector  # (n,), their rows; empty unless positions are asked for
    low: UInt32Vector  # (LOW_BINS + 1,)
    low_rows: Int32Vector  # (n,), rows of one bin by distance; empty unless positions are asked for
    keys: UInt64Vector  # (r,)
    spare: UInt64Vector  # (r,)
    relevant_bins: UInt64Vector  # (r,), each once
    crowded: UInt32Vector  # (1,), whether a bin had more items than room


@kernel
def _make_scratch(width: int, items: int, relevant: int, with_positions: bool, queries: int) -> Scratch:
    rows = items if with_positions else 0
    return Scratch(
        make_table(width, queries),
        np.empty((queries, items), np.uint32),
        np.empty(BINS, np.uint32),
        np.empty(BINS + 1, np.uint32),
        np.empty((1 if with_positions else 1 + ROOM) * items + WINDOW, np.uint16),
        np.empty(rows, np.int32),
        np.empty(LOW_BINS + 1, np.uint32),
        np.empty(rows, np.int32),
        np.empty(relevant, np.uint64),
        np.empty(relevant, np.uint64),
        np.empty(relevant, np.uint64),
        np.zeros(1, np.uint32),
    )


@kernel
def _sort(keys: np.ndarray, spare: np.ndarray) -> np.ndarray:
    """Sort keys by their distances, stably, like :func:`lshbench.kernels.keys.radix_sort`: by digits that divide 24."""
    width = DIGIT if len(keys) > FEW_KEYS else SMALL_DIGIT
    counts = np.empty(1 << width, np.uint32)
    mask = np.uint64((1 << width) - 1)
    for low in range(0, 24, width):
        down = np.uint64(low)
        counts[:] = 0
        for j in range(len(keys)):
            counts[(order_of(keys[j]) >> down) & mask] += ONE
        start = ZERO
        for value in range(1 << width):
            count = counts[value]
            counts[value] = start
            start += count
        for j in range(len(keys)):
            value = (order_of(keys[j]) >> down) & mask
            spare[counts[value]] = keys[j]
            counts[value] += ONE
        keys, spare = spare, keys
    return keys


@kernel
def _distinct_bins(keys: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return the bins of sorted keys, each once, ascending: a view of ``numbers``, uint64 and at least as long."""
    count, last = 0, np.uint64(BINS)
    for key in keys:
        number = order_of(key) >> np.uint64(LOW_BITS)
        if number != last:
            numbers[count] = number
            count += 1
        last = number
    return numbers[:count]


@kernel
def _share_room(relevant: np.ndarray, items: int, bins: np.ndarray) -> int:
    """Set where each bin begins, before it is known how many items it has; return how much room a relevant bin has.

    Bins with a relevant item get equal rooms one after the other, in order.  All others begin in one place behind: of
    them it matters how far they get, and not what they hold.

    Args:
        relevant: the bins with a relevant item, ascending; at most one in ``SPARSE`` items.
    """
    # An odd number of lines: rooms that begin at multiples of a power of two would share few places of the cache.
    room = LINE * ((ROOM * items // len(relevant) // LINE - 1) | 1)
    bins[:] = np.uint32(ROOM * items)
    for j in range(len(relevant)):
        bins[relevant[j]] = np.uint32(j * room)
    return room


@kernel
def _count_shared(relevant: np.ndarray, room: int, items: int, bins: np.ndarray, starts: np.ndarray) -> bool:
    """Fill ``starts`` for bins with a relevant item from where all bins end; return whether each stayed in its room."""
    outside = np.uint32(ROOM * items)
    passed, behind = np.int64(0), np.uint64(0)
    for j in range(len(relevant)):
        number = relevant[j]
        for other in range(behind, number):
            passed += np.int64(bins[other] - outside)
        count = np.int64(bins[number]) - j * room
        if count > room:
            return False
        behind = number + np.uint64(1)
        starts[number], starts[behind] = passed, passed + count
        passed += count
    return True


@kernel
def _share_exactly(distances: np.ndarray, bins: np.ndarray, starts: np.ndarray) -> None:
    """Set where each bin begins if all have the room that they need, and fill ``starts`` with the same."""
    bins[:] = 0
    for row in range(len(distances)):
        bins[distances[row] >> HIGH] += ONE
    start = ZERO
    for number in range(BINS):
        count = bins[number]
        bins[number] = start
        starts[number] = start
        start += count
    starts[BINS] = start


@kernel
def _fill_bins(distances: np.ndarray, scratch: Scratch, with_positions: bool) -> None:
    """Move low bits of distances, and rows, to the bins of their high bits, rows ascending.

    ``bins`` says where each begins, and is left to say where it ends.
    """
    bins, ordered = scratch.bins, scratch.ordered
    for row in range(len(distances)):
        number = distances[row] >> HIGH
        place = bins[number]
        ordered[place] = np.uint16(distances[row] & LOW)
        if with_positions:
            scratch.ordered_rows[place] = np.int32(row)
        bins[number] = np.uint32(place + ONE)


@kernel
def _count_low(begin: int, end: int, scratch: Scratch, with_positions: bool) -> None:
    """Count the items of a bin by their low bits: ``low`` says where each value begins, ``low_rows`` has the rows."""
    low, ordered = scratch.low, scratch.ordered
    low[:] = 0
    for value in ordered[begin:end]:
        low[np.uint32(value) + ONE] += ONE
    for value in range(LOW_BINS):
        low[value + 1] += low[value]
    if with_positions:
        for place in range(begin, end):
            value = ordered[place]
            scratch.low_rows[low[value]] = scratch.ordered_rows[place]
            low[value] += ONE
        # Each value has advanced to where the next begins.
        for value in range(LOW_BINS, 0, -1):
            low[value] = low[value - 1]
        low[0] = 0


@kernel
def _shared(keys: np.ndarray, first: int) -> int:
    """Return how many keys from ``first`` on share its bin."""
    number = order_of(keys[first]) >> np.uint64(LOW_BITS)
    last = first + 1
    while last < len(keys) and order_of(keys[last]) >> np.uint64(LOW_BITS) == number:
        last += 1
    return last - first


@kernel
def _place_tied(
    rows: np.ndarray, ordered: np.ndarray, value: np.uint16, keys: np.ndarray, before: int, positions: np.ndarray
) -> None:
    """Fill the positions of relevant items that irrelevant ones tie with, by the order of rows.

    Args:
        rows: of the items of a bin, ascending among equal ones.
        ordered: their low bits; empty where all are equal.
        keys: of the relevant items that tie.
        before: items ranked before them all.
    """
    place, found = before, 0
    for j in range(len(keys)):
        row = row_of(keys[j])
        while rows[found] != row:
            place += len(ordered) == 0 or ordered[found] == value
            found += 1
        positions[j] = place + 1


@kernel
def _order(distances: np.ndarray, keys: np.ndarray, with_positions: bool, scratch: Scratch) -> None:
    """Fill the bins and ``starts``, at least those of relevant items."""
    bins, starts = scratch.bins, scratch.starts
    # Equal rooms save a pass over all distances.  Where a bin had too many items for its room, they aren't tried again:
    # equal codes of the same gallery make it so.
    if not with_positions and scratch.crowded[0] == 0 and SPARSE * len(keys) <= len(distances):
        relevant = _distinct_bins(keys, scratch.relevant_bins)
        room = _share_room(relevant, len(distances), bins)
        _fill_bins(distances, scratch, with_positions)
        if _count_shared(relevant, room, len(distances), bins, starts):
            return
        scratch.crowded[0] = 1
    _share_exactly(distances, bins, starts)
    _fill_bins(distances, scratch, with_positions)


@kernel
def _rank_one(
    distances: np.ndarray,
    rows: np.ndarray,
    with_positions: bool,
    scratch: Scratch,
    groups: np.ndarray,
    positions: np.ndarray,
) -> int:
    """Rank the gallery for one query that has relevant items, as :func:`rank` does; return how many groups.

    Args:
        distances: uint32 ``(n,)``.
        rows: of the relevant items, ascending.
    """
    bins, starts, ordered, low = scratch.bins, scratch.starts, scratch.ordered, scratch.low
    relevant = len(rows)
    keys = scratch.keys[:relevant]
    for j in range(relevant):
        keys[j] = sort_key(np.uint64(distances[rows[j]]), rows[j])
    keys = _sort(keys, scratch.spare[:relevant])
    _order(distances, keys, with_positions, scratch)
    total, first = 0, 0
    counted = np.uint32(BINS)  # the bin whose items are counted by their low bits
    while first < relevant:
        distance = np.uint32(order_of(keys[first]))
        behind = first + 1
        while behind < relevant and np.uint32(order_of(keys[behind])) == distance:
            behind += 1
        number, value = distance >> HIGH, distance & LOW
        passed = np.int64(starts[number])
        end = np.int64(bins[number])
        begin = end - (np.int64(starts[number + ONE]) - passed)
        if end - begin > WIDE and number != counted and _shared(keys, first) * (end - begin) > MANY:
            _count_low(begin, end, scratch, with_positions)
            counted = number
        if number == counted:
            smaller = np.int64(low[value])
            size = np.int64(low[value + ONE]) - smaller
        else:
            both = np.int64(0)
            smaller, size = np.int64(0), np.int64(0)
            for place in range(begin, end, WINDOW):
                both = count_in_window(ordered, place, min(end - place, WINDOW), np.int16(value))
                smaller += both & FEW
                size += both >> 32
        before = passed + smaller
        groups[0, total] = before
        groups[1, total] = first
        groups[2, total] = size
        groups[3, total] = behind - first
        total += 1
        if with_positions:
            own = positions[first:behind]
            if size == behind - first:
                for j in range(len(own)):
                    own[j] = before + 1 + j
            elif number == counted:
                tied = scratch.low_rows[smaller : smaller + size]
                _place_tied(tied, ordered[:0], np.uint16(value), keys[first:behind], before, own)
            else:
                tied = scratch.ordered_rows[begin:end]
                _place_tied(tied, ordered[begin:end], np.uint16(value), keys[first:behind], before, own)
        first = behind
    return total


@threaded_kernel
def rank(
    part: int,
    parts: int,
    projections: np.ndarray,
    codes: np.ndarray,
    labels: Labels,
    order: np.ndarray,
    starts: np.ndarray,
    slots: np.ndarray,
    with_positions: bool,
    together: int,
    units: np.ndarray,
    counts: np.ndarray,
    groups: np.ndarray,
    positions: np.ndarray,
) -> None:
    """Fill each query's tie groups (items before, relevant before, size, relevant) from its slot on, and count them.

    Args:
        projections: float32 ``(q, bits)``.
        order, starts: gallery rows by label, and where each query's begin; not read where there are masks.
        slots: int64 ``(q + 1,)``, running totals of relevant items.
        together: queries whose distances a thread holds at once, eight or sixteen.
        units: float64 ``(q,)``, filled; NaN stands for a query that isn't finite, of which nothing else is filled.
        positions: int32 ``(slots[-1],)`` if asked for.
    """
    labels = borrowed(labels)
    most = 0
    for i in range(len(counts)):
        most = max(most, slots[i + 1] - slots[i])
    scratch = _make_scratch(codes.shape[1], len(codes), most, with_positions, together)
    found = np.empty(most if labels.gallery_masks.shape[0] else 0, np.int64)
    for chunk in own_part((len(counts) + together - 1) // together, part, parts):
        start, stop = chunk * together, min(len(counts), (chunk + 1) * together)
        fill_table(projections[start:stop], units[start:stop], scratch.table)
        fill_sums(scratch.table, codes, 0, len(codes), scratch.sums)
        scratch.crowded[0] = 0
        for i in range(start, stop):
            first, last = slots[i], slots[i + 1]
            counts[i] = 0
            rows = relevant_rows(labels, i, order, starts, last - first, found)
            if first < last and not np.isnan(units[i]):
                counts[i] = _rank_one(
                    scratch.sums[i - start],
                    rows,
                    with_positions,
                    scratch,
                    groups[:, first:last],
                    positions[first:last],
                )
