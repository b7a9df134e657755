"""Kernels of :mod:`lshbench.ranking.asymmetric_codes`: a query's projections against packed binary codes.

A query's projections are rounded to whole numbers whose magnitudes add up to less than 2^24.  The asymmetric distance
of a code, in the query's unit, is the sum of the magnitudes of the bits in which the two differ: a whole number, so
that equal codes tie exactly and a ranking can be counted instead of sorted.  Sums come from tables: what each value of
each byte of a code adds.  An entry holds the sums of two queries, one in each half of 64 bits, so that one look-up
serves both.

Codes are uint8 ``(n, bytes)`` as :class:`lshbench.types.Codes` packs them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import prange

from lshbench.kernels.compilation import kernel
from lshbench.kernels.frames import Int32Vector, UInt32Vector, UInt64Matrix, UInt64Vector
from lshbench.kernels.keys import order_of, radix_sort, row_of, sort_key
from lshbench.kernels.labels import Labels, is_relevant
from lshbench.kernels.topk import NO_LIMIT, collect, room_for, smallest

EXACT = float(1 << 24)
"""Bound of a query's distances in its unit: whole numbers up to this one are exact in float32."""

LOW_BITS = 10
"""Bits of a distance that are counted apart from the others, and only where many items share these."""

BINS = 1 << (24 - LOW_BITS)
LOW_BINS = 1 << LOW_BITS

MANY = 1 << 14
"""Comparisons in one bin above which its items are counted by their low bits instead."""

TILE = 1024
"""Items whose sums are held at a time in a search for the nearest."""

CHUNK = 16
"""Queries that share scratch memory; an even number."""

HALF = np.uint64(32)
ONE = np.uint32(1)
TEN, LOW, BIN = np.uint64(LOW_BITS), np.uint32(LOW_BINS - 1), np.uint64(BINS - 1)


class Scratch(NamedTuple):
    """Scratch memory of one thread, for queries with up to ``r`` relevant items of ``n``."""

    table: UInt64Matrix  # (bytes, 256)
    sums: UInt64Vector  # (n,), of two queries
    bins: UInt32Vector  # (BINS,)
    ordered: UInt32Vector  # (n,), distances by bin, rows ascending in each
    ordered_rows: Int32Vector  # (n,), their rows; empty unless positions are asked for
    low: UInt32Vector  # (LOW_BINS + 1,)
    low_rows: Int32Vector  # (n,), rows of one bin by distance; empty unless positions are asked for
    keys: UInt64Vector  # (r,)
    spare: UInt64Vector  # (r,)


@kernel
def _make_scratch(width: int, items: int, relevant: int, with_positions: bool) -> Scratch:
    rows = items if with_positions else 0
    return Scratch(
        np.empty((width, 256), np.uint64),
        np.empty(items, np.uint64),
        np.empty(BINS, np.uint32),
        np.empty(items, np.uint32),
        np.empty(rows, np.int32),
        np.empty(LOW_BINS + 1, np.uint32),
        np.empty(rows, np.int32),
        np.empty(relevant, np.uint64),
        np.empty(relevant, np.uint64),
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
def whole_magnitude(projection: np.float32, unit: float) -> np.uint32:
    """Return what a differing bit adds to the distance."""
    return np.uint32(np.rint(abs(np.float64(projection)) / unit))


@kernel
def fill_byte(projections: np.ndarray, unit: float, byte: int, sums: np.ndarray) -> None:
    """Fill ``sums`` uint32 ``(256,)`` with what each value of a byte of a code adds to the distance."""
    places = min(8, len(projections) - 8 * byte)
    none = np.uint32(0)
    for j in range(places):
        if projections[8 * byte + j] >= 0:
            none += whole_magnitude(projections[8 * byte + j], unit)
    sums[0] = none
    for j in range(8):
        # Unsigned numbers wrap around: adding a negative difference subtracts.
        added = np.uint32(0)
        place = 7 - j
        if place < places:
            projection = projections[8 * byte + place]
            added = whole_magnitude(projection, unit)
            if projection >= 0:
                added = np.uint32(0) - added
        half = 1 << j
        for value in range(half):
            sums[half + value] = sums[value] + added


@kernel
def _fill_table(projections: np.ndarray, first: int, units: np.ndarray, table: np.ndarray) -> None:
    """Fill the table of queries ``first`` and, if there is one, the next, and their units."""
    sums = np.empty(256, np.uint32)
    table[:] = np.uint64(0)
    for i in range(first, min(first + 2, len(projections))):
        units[i] = unit_of(projections[i])
        if np.isnan(units[i]):
            continue
        up = HALF * np.uint64(i - first)
        for byte in range(len(table)):
            fill_byte(projections[i], units[i], byte, sums)
            row = table[byte]
            for value in range(256):
                row[value] |= np.uint64(sums[value]) << up


@kernel
def _fill_sums(table: np.ndarray, codes: np.ndarray, sums: np.ndarray) -> None:
    """Fill ``sums`` uint64 ``(n,)`` with the distances of codes to two queries."""
    width = codes.shape[1]
    byte = 0
    if width >= 8:
        a, b, c, d = table[0], table[1], table[2], table[3]
        e, f, g, h = table[4], table[5], table[6], table[7]
        for j in range(len(sums)):
            left = a[codes[j, 0]] + b[codes[j, 1]] + c[codes[j, 2]] + d[codes[j, 3]]
            right = e[codes[j, 4]] + f[codes[j, 5]] + g[codes[j, 6]] + h[codes[j, 7]]
            sums[j] = left + right
        byte = 8
    else:
        sums[:] = np.uint64(0)
    while byte + 4 <= width:
        a, b, c, d = table[byte], table[byte + 1], table[byte + 2], table[byte + 3]
        for j in range(len(sums)):
            left = a[codes[j, byte]] + b[codes[j, byte + 1]]
            sums[j] += left + (c[codes[j, byte + 2]] + d[codes[j, byte + 3]])
        byte += 4
    while byte < width:
        a = table[byte]
        for j in range(len(sums)):
            sums[j] += a[codes[j, byte]]
        byte += 1


@kernel
def _fill_bins(sums: np.ndarray, up: np.uint64, scratch: Scratch, with_positions: bool) -> None:
    """Order distances by their high bits, rows ascending; ``bins`` says where each bin ends."""
    bins, ordered = scratch.bins, scratch.ordered
    bins[:] = 0
    down = up + TEN
    for pair in sums:
        bins[(pair >> down) & BIN] += ONE
    start = np.uint32(0)
    for number in range(BINS):
        count = bins[number]
        bins[number] = start
        start += count
    if with_positions:
        rows = scratch.ordered_rows
        for row in range(len(sums)):
            number = (sums[row] >> down) & BIN
            place = bins[number]
            ordered[place] = np.uint32(sums[row] >> up)
            rows[place] = np.int32(row)
            bins[number] = place + ONE
    else:
        for pair in sums:
            number = (pair >> down) & BIN
            place = bins[number]
            ordered[place] = np.uint32(pair >> up)
            bins[number] = place + ONE


@kernel
def _count_low(begin: int, end: int, scratch: Scratch, with_positions: bool) -> None:
    """Count the items of a bin by their low bits: ``low`` says where each value begins, ``low_rows`` has the rows."""
    low, ordered = scratch.low, scratch.ordered
    low[:] = 0
    for distance in ordered[begin:end]:
        low[(distance & LOW) + ONE] += ONE
    for value in range(LOW_BINS):
        low[value + 1] += low[value]
    if with_positions:
        for place in range(begin, end):
            value = ordered[place] & LOW
            scratch.low_rows[low[value]] = scratch.ordered_rows[place]
            low[value] += ONE
        # Each value has advanced to where the next begins.
        for value in range(LOW_BINS, 0, -1):
            low[value] = low[value - 1]
        low[0] = 0


@kernel
def _count_smaller_and_equal(distances: np.ndarray, value: np.uint32) -> tuple[np.uint32, np.uint32]:
    smaller, equal = np.uint32(0), np.uint32(0)
    for distance in distances:
        smaller += np.uint32(distance < value)
        equal += np.uint32(distance == value)
    return smaller, equal


@kernel
def _rank_one(
    up: np.uint64, rows: np.ndarray, with_positions: bool, scratch: Scratch, groups: np.ndarray, positions: np.ndarray
) -> int:
    """Rank the gallery for one query that has relevant items, as :func:`rank` does; return how many groups.

    Args:
        up: bits by which its distances are shifted in ``scratch.sums``.
        rows: of the relevant items, ascending.
    """
    sums, ordered, bins, low = scratch.sums, scratch.ordered, scratch.bins, scratch.low
    _fill_bins(sums, up, scratch, with_positions)
    relevant = len(rows)
    keys = scratch.keys[:relevant]
    for j in range(relevant):
        keys[j] = sort_key(np.uint64(np.uint32(sums[rows[j]] >> up)), rows[j])
    keys = radix_sort(keys, scratch.spare[:relevant])
    total, first = 0, 0
    while first < relevant:
        number = order_of(keys[first]) >> TEN
        last = first + 1
        while last < relevant and order_of(keys[last]) >> TEN == number:
            last += 1
        begin = np.int64(bins[number - np.uint64(1)]) if number else 0
        end = np.int64(bins[number])
        counted = (last - first) * (end - begin) > MANY
        if counted:
            _count_low(begin, end, scratch, with_positions)
        while first < last:
            value = np.uint32(order_of(keys[first]))
            behind = first + 1
            while behind < last and np.uint32(order_of(keys[behind])) == value:
                behind += 1
            if counted:
                smaller = low[value & LOW]
                size = low[(value & LOW) + ONE] - smaller
            else:
                smaller, size = _count_smaller_and_equal(ordered[begin:end], value)
            before = begin + np.int64(smaller)
            groups[0, total] = before
            groups[1, total] = first
            groups[2, total] = size
            groups[3, total] = behind - first
            total += 1
            if with_positions:
                if np.int64(size) == behind - first:
                    for j in range(first, behind):
                        positions[j] = before + 1 + j - first
                else:  # others tie with them: in order of rows
                    place, j = np.int64(0), first
                    found = np.int64(smaller) if counted else begin
                    while j < behind:
                        here = counted or ordered[found] == value
                        row = scratch.low_rows[found] if counted else scratch.ordered_rows[found]
                        found += 1
                        place += here
                        if here and row == row_of(keys[j]):
                            positions[j] = before + place
                            j += 1
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
        units: float64 ``(q,)``, filled as :func:`unit_of` says; of a query with NaN nothing else is filled.
        positions: int32 ``(slots[-1],)`` if asked for.
    """
    single = labels.gallery_masks.shape[0] == 0
    most = 0
    for i in range(len(counts)):
        most = max(most, slots[i + 1] - slots[i])
    size = 2 * max(1, min(CHUNK, len(counts) // 16) // 2)
    for chunk in prange((len(counts) + size - 1) // size):
        scratch = _make_scratch(codes.shape[1], len(codes), most, with_positions)
        found = np.empty(0 if single else most, np.int64)
        end = min(len(counts), (chunk + 1) * size)
        for pair in range(chunk * size, end, 2):
            _fill_table(projections, pair, units, scratch.table)
            _fill_sums(scratch.table, codes, scratch.sums)
            for i in range(pair, min(pair + 2, end)):
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
                    up = HALF * np.uint64(i - pair)
                    counts[i] = _rank_one(
                        up, rows, with_positions, scratch, groups[:, first:last], positions[first:last]
                    )


@kernel
def _collect(
    projections: np.ndarray,
    pair: int,
    codes: np.ndarray,
    start: int,
    k: int,
    units: np.ndarray,
    rooms: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Collect the ``k`` nearest of some codes, whose first is row ``start``, for query ``pair`` and the next.

    Args:
        rooms, counts: a collection (:mod:`lshbench.kernels.topk`) for each of the two; filled.
    """
    table = np.empty((codes.shape[1], 256), np.uint64)
    _fill_table(projections, pair, units, table)
    asked = min(2, len(projections) - pair)
    sums = np.empty(TILE, np.uint64)
    counts[:asked] = 0
    limits = np.full(2, NO_LIMIT)
    farthest = np.full(2, EXACT).astype(np.uint32)  # distances from this one on are no longer among the nearest
    for begin in range(0, len(codes), TILE):
        own = sums[: min(TILE, len(codes) - begin)]
        _fill_sums(table, codes[begin : begin + TILE], own)
        for i in range(asked):
            up = HALF * np.uint64(i)
            room, count, limit, far = rooms[i], counts[i], limits[i], farthest[i]
            for j in range(len(own)):
                distance = np.uint32(own[j] >> up)
                if distance < far:
                    key = sort_key(np.uint64(distance), start + begin + j)
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
    rooms = np.empty((2, room_for(k)), np.uint64)
    counts = np.empty(2, np.int64)
    for pair in range(0, len(projections), 2):
        _collect(projections, pair, codes, 0, k, units, rooms, counts)
        for i in range(pair, min(pair + 2, len(projections))):
            _write(smallest(rooms[i - pair], counts[i - pair], k), units[i], ids[i], distances[i])


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
    room = room_for(k)
    rooms = np.empty((parts, len(projections) + 1, room), np.uint64)
    counts = np.zeros((parts, len(projections) + 1), np.int64)
    for task in prange(parts * ((len(projections) + 1) // 2)):
        part, pair = task % parts, 2 * (task // parts)
        start, stop = len(codes) * part // parts, len(codes) * (part + 1) // parts
        _collect(
            projections,
            pair,
            codes[start:stop],
            start,
            k,
            units,
            rooms[part, pair : pair + 2],
            counts[part, pair : pair + 2],
        )
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
