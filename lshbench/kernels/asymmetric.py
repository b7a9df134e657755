"""Kernels of :mod:`lshbench.ranking.asymmetric_codes`: a query's projections against packed binary codes.

A query's projections are rounded to whole numbers whose magnitudes add up to less than 2^24.  The asymmetric distance
of a code, in the query's unit, is the sum of the magnitudes of the bits in which the two differ: a whole number, so
that equal codes tie exactly and a ranking can be counted instead of sorted.  Sums come from tables: what each value of
each half byte of a code adds.  An entry has the sums of eight or sixteen queries side by side, so that one look-up
serves all.

Codes are uint8 ``(n, bytes)`` as :class:`lshbench.types.Codes` packs them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import prange

from lshbench.kernels.compilation import kernel
from lshbench.kernels.frames import Int32Vector, UInt16Vector, UInt32Cube, UInt32Matrix, UInt32Vector, UInt64Vector
from lshbench.kernels.keys import order_of, row_of, sort_key
from lshbench.kernels.labels import Labels, is_relevant
from lshbench.kernels.lanes import EIGHT, WINDOW, count_in_window, sum_eight, sum_sixteen
from lshbench.kernels.topk import NO_LIMIT, collect, room_for, smallest

EXACT = float(1 << 24)
"""Bound of a query's distances in its unit: whole numbers up to this one are exact in float32."""

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

TILE = 512
"""Items whose sums are held at a time in a search for the nearest."""

ALIGNED = 64
"""Bytes at a multiple of which tables begin, so that no entry lies in two lines of the cache."""

BLOCK = 32
"""Distances that are compared with a query's k-th at once, before any of them is looked at."""

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
    crowded: UInt32Vector  # (1,), whether a bin had more items than room


@kernel
def _make_table(width: int, queries: int) -> np.ndarray:
    """Return memory for the table of eight or sixteen queries and codes of so many bytes."""
    size = 2 * width * 16 * queries
    room = np.empty(size + ALIGNED // 4, np.uint32)
    skipped = -(room.ctypes.data // 4) % (ALIGNED // 4)
    return room[skipped : skipped + size].reshape((2 * width, 16, queries))


@kernel
def _make_scratch(width: int, items: int, relevant: int, with_positions: bool, queries: int) -> Scratch:
    rows = items if with_positions else 0
    return Scratch(
        _make_table(width, queries),
        np.empty((queries, items), np.uint32),
        np.empty(BINS, np.uint32),
        np.empty(BINS + 1, np.uint32),
        np.empty((1 if with_positions else 1 + ROOM) * items + WINDOW, np.uint16),
        np.empty(rows, np.int32),
        np.empty(LOW_BINS + 1, np.uint32),
        np.empty(rows, np.int32),
        np.empty(relevant, np.uint64),
        np.empty(relevant, np.uint64),
        np.zeros(1, np.uint32),
    )


@kernel
def unit_of(projections: np.ndarray) -> float:
    """Return the unit of a query's distances, a power of two; NaN if a projection isn't finite."""
    total = 0.0
    for value in projections:
        total += abs(np.float64(value))
    if not np.isfinite(total):
        return np.nan
    # Powers of two: small projections lose nothing by them.  Rounding may add half to every magnitude.
    return np.exp2(-np.floor(np.log2((EXACT - len(projections)) / total))) if total > 0 else 1.0


@kernel
def fill_entries(projections: np.ndarray, unit: float, first: int, bits: int, sums: np.ndarray) -> None:
    """Fill ``sums`` uint32 ``(2^bits,)`` with what each value of some bits of a code, from ``first`` on, adds."""
    none = np.uint32(0)
    for value in projections[first : first + bits]:
        if value >= 0:
            none += np.uint32(np.rint(np.float64(value) / unit))
    sums[0] = none
    for j in range(bits):
        # Unsigned numbers wrap around: adding a negative difference subtracts.
        added = np.uint32(0)
        place = first + bits - 1 - j
        if place < len(projections):
            added = np.uint32(np.rint(abs(np.float64(projections[place])) / unit))
            if projections[place] >= 0:
                added = np.uint32(0) - added
        half = 1 << j
        for value in range(half):
            sums[half + value] = sums[value] + added


@kernel
def _fill_table(projections: np.ndarray, units: np.ndarray, table: np.ndarray) -> None:
    """Fill a table for up to as many queries as it has room for, and their units.

    Of a query that isn't finite, and of none, entries are zeros.
    """
    sums = np.empty(16, np.uint32)
    table[:] = 0
    for i in range(len(projections)):
        units[i] = unit_of(projections[i])
        if np.isnan(units[i]):
            continue
        for half in range(len(table)):
            if 4 * half < len(projections[i]):
                fill_entries(projections[i], units[i], 4 * half, 4, sums)
                for value in range(16):
                    table[half, value, i] = sums[value]


@kernel
def _fill_sums(table: np.ndarray, codes: np.ndarray, start: int, stop: int, sums: np.ndarray) -> None:
    """Fill ``sums`` uint32 ``(queries, m)`` with the distances of codes ``start`` to ``stop`` to a table's queries."""
    queries = table.shape[2]
    if stop - start < EIGHT:
        for row in range(start, stop):
            for i in range(queries):
                total = np.uint32(0)
                for byte in range(codes.shape[1]):
                    total += table[2 * byte, codes[row, byte] >> 4, i] + table[2 * byte + 1, codes[row, byte] & 15, i]
                sums[i, row - start] = total
        return
    for row in range(start, stop, EIGHT):
        first = min(row, stop - EIGHT)  # the last ones are taken again
        if queries == EIGHT:
            sum_eight(table, codes, first, sums, first - start)
        else:
            sum_sixteen(table, codes, first, sums, first - start)


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
def _share_room(keys: np.ndarray, items: int, bins: np.ndarray) -> int:
    """Set where each bin begins, before it is known how many items it has; return how much room a relevant bin has.

    Bins with a relevant item get equal rooms one after the other, in order.  All others begin in one place behind: of
    them it matters how far they get, and not what they hold.

    Args:
        keys: of the relevant items, sorted; at most one in ``SPARSE`` items.
    """
    wanted, last = 0, np.uint64(BINS)
    for key in keys:
        number = order_of(key) >> np.uint64(LOW_BITS)
        wanted += number != last
        last = number
    # An odd number of lines: rooms that begin at multiples of a power of two would share few places of the cache.
    room = LINE * ((ROOM * items // wanted // LINE - 1) | 1)
    bins[:] = np.uint32(ROOM * items)
    start, last = 0, np.uint64(BINS)
    for key in keys:
        number = order_of(key) >> np.uint64(LOW_BITS)
        if number != last:
            bins[number] = np.uint32(start)
            start += room
        last = number
    return room


@kernel
def _count_shared(keys: np.ndarray, room: int, items: int, bins: np.ndarray, starts: np.ndarray) -> bool:
    """Fill ``starts`` for bins with a relevant item from where all bins end; return whether each stayed in its room."""
    outside = np.uint32(ROOM * items)
    passed, start = np.int64(0), np.int64(0)
    behind, last = np.uint64(0), np.uint64(BINS)
    for key in keys:
        number = order_of(key) >> np.uint64(LOW_BITS)
        if number == last:
            continue
        for other in range(behind, number):
            passed += np.int64(bins[other] - outside)
        count = np.int64(bins[number]) - start
        if count > room:
            return False
        behind = number + np.uint64(1)
        starts[number], starts[behind] = passed, passed + count
        passed, start, last = passed + count, start + room, number
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
        room = _share_room(keys, len(distances), bins)
        _fill_bins(distances, scratch, with_positions)
        if _count_shared(keys, room, len(distances), bins, starts):
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


@kernel(parallel=True)
def rank(
    projections: np.ndarray,
    codes: np.ndarray,
    labels: Labels,
    order: np.ndarray,
    starts: np.ndarray,
    slots: np.ndarray,
    with_positions: bool,
    together: int,
    parts: int,
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
        parts: how many threads there are.
        units: float64 ``(q,)``, filled as :func:`unit_of` says; of a query with NaN nothing else is filled.
        positions: int32 ``(slots[-1],)`` if asked for.
    """
    single = labels.gallery_masks.shape[0] == 0
    most = 0
    for i in range(len(counts)):
        most = max(most, slots[i + 1] - slots[i])
    chunks = (len(counts) + together - 1) // together
    for part in prange(min(parts, chunks)):
        scratch = _make_scratch(codes.shape[1], len(codes), most, with_positions, together)
        found = np.empty(0 if single else most, np.int64)
        for chunk in range(part, chunks, parts):
            start, stop = chunk * together, min(len(counts), (chunk + 1) * together)
            _fill_table(projections[start:stop], units[start:stop], scratch.table)
            _fill_sums(scratch.table, codes, 0, len(codes), scratch.sums)
            scratch.crowded[0] = 0
            for i in range(start, stop):
                first, last = slots[i], slots[i + 1]
                counts[i] = 0
                if single:
                    rows = order[starts[i] : starts[i] + last - first]
                else:
                    rows = found[: last - first]
                    count = 0
                    for row in range(len(codes)):
                        if is_relevant(labels, i, row):
                            rows[count] = row
                            count += 1
                if first < last and not np.isnan(units[i]):
                    counts[i] = _rank_one(
                        scratch.sums[i - start],
                        rows,
                        with_positions,
                        scratch,
                        groups[:, first:last],
                        positions[first:last],
                    )


@kernel
def _collect(
    projections: np.ndarray,
    codes: np.ndarray,
    start: int,
    stop: int,
    k: int,
    units: np.ndarray,
    rooms: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Collect the ``k`` nearest of codes ``start`` to ``stop`` for up to eight queries.

    Args:
        units: float64, filled as :func:`unit_of` says.
        rooms, counts: a collection (:mod:`lshbench.kernels.topk`) for each query; filled.
    """
    table = _make_table(codes.shape[1], EIGHT)
    _fill_table(projections, units, table)
    sums = np.empty((EIGHT, TILE), np.uint32)
    counts[:] = 0
    limits = np.full(EIGHT, NO_LIMIT)
    farthest = np.full(EIGHT, np.uint32(EXACT))  # distances from this one on are no longer among the nearest
    for begin in range(start, stop, TILE):
        size = min(TILE, stop - begin)
        _fill_sums(table, codes, begin, begin + size, sums)
        for i in range(len(projections)):
            own, room, count, limit, far = sums[i, :size], rooms[i], counts[i], limits[i], farthest[i]
            for block in range(0, size, BLOCK):
                part = own[block : min(block + BLOCK, size)]
                near = ZERO
                for distance in part:
                    near += np.uint32(distance < far)
                if near == 0:
                    continue
                for j in range(len(part)):
                    if part[j] < far:
                        key = sort_key(np.uint64(part[j]), begin + block + j)
                        count, nearer = collect(key, room, count, limit, k)
                        if nearer < limit:
                            # Rows ascend and ties go to the smaller one: only a nearer item is added.
                            limit = nearer
                            far = np.uint32(order_of(limit))
            counts[i], limits[i], farthest[i] = count, limit, far


@kernel
def _write(found: np.ndarray, unit: float, ids: np.ndarray, distances: np.ndarray) -> None:
    """Write items and distances from sorted keys."""
    for column in range(len(found)):
        ids[column] = row_of(found[column])
        distances[column] = np.float32(np.float64(order_of(found[column])) * unit)


@kernel
def nearest_serial(
    projections: np.ndarray, codes: np.ndarray, k: int, units: np.ndarray, ids: np.ndarray, distances: np.ndarray
) -> None:
    """Write the first ``k`` columns: the nearest items of each query in order, ties by the smaller row.

    Args:
        k: at most ``n``.
        units: float64 ``(q,)``, filled as :func:`unit_of` says; what is written of a query with NaN means nothing.
    """
    rooms = np.empty((EIGHT, room_for(k)), np.uint64)
    counts = np.empty(EIGHT, np.int64)
    for start in range(0, len(projections), EIGHT):
        asked = slice(start, min(start + EIGHT, len(projections)))
        _collect(projections[asked], codes, 0, len(codes), k, units[asked], rooms, counts)
        for i in range(start, min(start + EIGHT, len(projections))):
            _write(smallest(rooms[i - start], counts[i - start], k), units[i], ids[i], distances[i])


@kernel(parallel=True)
def nearest_parallel(
    projections: np.ndarray,
    codes: np.ndarray,
    k: int,
    parts: int,
    units: np.ndarray,
    ids: np.ndarray,
    distances: np.ndarray,
) -> None:
    """Write the first ``k`` columns like :func:`nearest_serial`, on all threads, each with some queries and a part of
    the gallery."""
    room, asked = room_for(k), len(projections)
    rooms = np.empty((parts, asked, room), np.uint64)
    counts = np.zeros((parts, asked), np.int64)
    for task in prange(parts * ((asked + EIGHT - 1) // EIGHT)):
        part, first = task % parts, EIGHT * (task // parts)
        own = slice(first, min(first + EIGHT, asked))
        start, stop = len(codes) * part // parts, len(codes) * (part + 1) // parts
        found = np.empty(EIGHT)  # each part's own, so that no two threads write to one place
        _collect(projections[own], codes, start, stop, k, found, rooms[part, own], counts[part, own])
        if part == 0:
            units[own] = found[: own.stop - own.start]
    for i in prange(len(projections)):
        keys = np.empty(parts * room, np.uint64)
        total = 0
        for part in range(parts):
            count = counts[part, i]
            keys[total : total + count] = rooms[part, i, :count]
            total += count
        if total > k:
            nearest = smallest(keys, total, k)
        else:
            nearest = keys[:total]
        nearest.sort()  # those of each part alone may be in order, as `smallest` expects
        _write(nearest, units[i], ids[i], distances[i])
