"""Kernels of :mod:`lshbench.ranking.hamming`: histograms of distances, positions of relevant items, the nearest k.

Shapes throughout: query words uint64 ``(q, words)``, gallery words uint64 ``(words, n)`` as
:mod:`lshbench.kernels.words` makes them, histograms uint32 ``(q, bits + 1)``.  Queries are spread over the threads in
chunks, and a chunk reads the gallery tile by tile, so that a tile stays in the second-level cache.
"""

from __future__ import annotations

import numpy as np

from lshbench.kernels.compilation import copy, kernel
from lshbench.kernels.frames import borrowed
from lshbench.kernels.keys import LOW, THIRTY_TWO, order_of, row_of, sort_key
from lshbench.kernels.labels import Labels, is_relevant, mark_relevant
from lshbench.kernels.threads import own_part, threaded_kernel
from lshbench.kernels.topk import keep_by_counting, sort_by_counting
from lshbench.kernels.words import LANE, hamming_distance, lane_of, lowest_bit, near_items, packed_distances

CHUNK = 32
"""Queries that share a tile."""

TILE_WORDS = 1 << 15
"""Words of a tile: 256 KB."""

PACKS = 64
"""Packs of 64 items that are processed at a time."""

NEAREST_PACKS = 16
"""The same in a top-k search, whose distance limit can first be set after as many."""

PAIR_BITS = 127
"""Longest codes whose distances are counted two at a time."""

PAIR_ITEMS = 4096
"""Fewest items for which clearing and adding up the table of pairs pays off."""

SPARSE = 16
"""Items within a distance limit are picked out one by one where they are at most one in this many."""

SIXTEEN, FORTY_EIGHT = np.uint64(16), np.uint64(48)
DISTANCE = np.uint64(0x7FFF)
SEVENTEEN = np.uint64(17)
NEXT_ITEM, NEXT_SLOT = np.uint64(1), np.uint64(1 << 32)
ONE = np.uint32(1)


@kernel
def chunk_size(queries: int) -> int:
    """Return how many queries share a tile."""
    # With few queries chunks are smaller, so that every thread has some.
    return max(1, min(CHUNK, queries // 16))


@kernel
def tile_size(planes: int) -> int:
    """Return how many items a tile has."""
    return max(64 * PACKS, TILE_WORDS // planes)


@kernel
def _count_pairs(
    query: np.ndarray,
    words: np.ndarray,
    start: int,
    stop: int,
    shift: int,
    histogram: np.ndarray,
    pairs: np.ndarray,
    buffer: np.ndarray,
) -> int:
    """Count items two at a time, and return the first item not counted.

    A table over pairs of distances takes one increment for two items; its rows and columns add up to the histogram.
    Two tables take turns: an increment has to wait for the last one of the same counter, which would be the rule where
    equal codes follow each other.
    """
    half_table = len(pairs) // 2
    second = np.uint64(half_table)
    up = np.uint64(shift)
    one = np.uint16(1)
    pairs[:] = 0
    while stop - start >= 128:
        packs = min(PACKS // 2, (stop - start) // 128)
        packed_distances(query, words, start, 2 * packs, buffer)
        half = 16 * packs
        for j in range(half):
            buffer[j] |= buffer[half + j] << up
        for j in range(half):
            entry = buffer[j]
            pairs[entry & LANE] += one
            pairs[second + ((entry >> SIXTEEN) & LANE)] += one
            pairs[(entry >> THIRTY_TWO) & LANE] += one
            pairs[second + (entry >> FORTY_EIGHT)] += one
        start += 128 * packs
    distances = len(histogram)
    for first in range(distances):
        row = first << shift
        left = pairs[row : row + distances]
        right = pairs[half_table + row : half_table + row + distances]
        total = np.uint32(0)
        for column in range(distances):
            count = np.uint32(left[column]) + np.uint32(right[column])
            histogram[column] += count
            total += count
        histogram[first] += total
    return start


@kernel
def _count_lanes(buffer: np.ndarray, entries: int, histogram: np.ndarray) -> None:
    for entry in buffer[:entries]:
        histogram[entry & LANE] += ONE
        histogram[(entry >> SIXTEEN) & LANE] += ONE
        histogram[(entry >> THIRTY_TWO) & LANE] += ONE
        histogram[entry >> FORTY_EIGHT] += ONE


@kernel
def _count(
    query: np.ndarray,
    words: np.ndarray,
    start: int,
    stop: int,
    shift: int,
    histogram: np.ndarray,
    pairs: np.ndarray,
    buffer: np.ndarray,
) -> None:
    """Add the distances of items ``start`` to ``stop`` (at most 131,070, which 16-bit pair counters hold)."""
    if shift > 0 and stop - start >= PAIR_ITEMS:
        start = _count_pairs(query, words, start, stop, shift, histogram, pairs, buffer)
    while stop - start >= 64:
        packs = min(PACKS, (stop - start) // 64)
        packed_distances(query, words, start, packs, buffer)
        _count_lanes(buffer, 16 * packs, histogram)
        start += 64 * packs
    for item in range(start, stop):
        histogram[hamming_distance(query, words, item)] += ONE


@threaded_kernel
def slice_histograms(
    part: int,
    parts: int,
    queries: np.ndarray,
    words: np.ndarray,
    starts: np.ndarray,
    stops: np.ndarray,
    bits: int,
    counts: np.ndarray,
    relevant: np.ndarray,
) -> None:
    """Add to the histograms of all items and of the relevant ones, which are a slice of the gallery for each query."""
    items = words.shape[1]
    tile = tile_size(words.shape[0])
    size = chunk_size(len(queries))
    shift = 0
    if bits <= PAIR_BITS:
        while 1 << shift <= bits:
            shift += 1
    table = (((bits << shift) | bits) // 32 + 1) * 32 if shift else 0
    for chunk in own_part((len(queries) + size - 1) // size, part, parts):
        pairs = np.empty(2 * table, np.uint16)
        buffer = np.empty(16 * PACKS, np.uint64)
        last = min(len(queries), (chunk + 1) * size)
        for begin in range(0, items, tile):
            end = min(items, begin + tile)
            for i in range(chunk * size, last):
                low = min(max(starts[i], begin), end)
                high = min(max(stops[i], low), end)
                # Before, in and after the slice: a single call, so that it is compiled once.
                for place in range(3):
                    first = begin if place == 0 else (low if place == 1 else high)
                    behind = low if place == 0 else (high if place == 1 else end)
                    histogram = relevant[i] if place == 1 else counts[i]
                    _count(queries[i], words, first, behind, shift, histogram, pairs, buffer)
        for i in range(chunk * size, last):
            counts[i] += relevant[i]


@threaded_kernel
def masked_histograms(
    part: int,
    parts: int,
    queries: np.ndarray,
    words: np.ndarray,
    labels: Labels,
    bits: int,
    counts: np.ndarray,
    relevant: np.ndarray,
) -> None:
    """Fill the histograms of all items and of those that share a label with the query.

    Both are halves of one table: an item is counted at its distance, in the second half if it is relevant.
    """
    labels = borrowed(labels)
    items = words.shape[1]
    tile = tile_size(words.shape[0])
    size = chunk_size(len(queries))
    bit = 0
    while 1 << bit <= bits:
        bit += 1
    second = 1 << bit
    for chunk in own_part((len(queries) + size - 1) // size, part, parts):
        buffer = np.empty(16 * PACKS, np.uint64)
        last = min(len(queries), (chunk + 1) * size)
        both = np.zeros((last - chunk * size, second + bits + 1), np.uint32)
        for begin in range(0, items, tile):
            end = min(items, begin + tile)
            for i in range(chunk * size, last):
                table = both[i - chunk * size]
                start = begin
                while end - start >= 64:
                    packs = min(PACKS, (end - start) // 64)
                    packed_distances(queries[i], words, start, packs, buffer)
                    mark_relevant(labels, i, start, packs, bit, buffer)
                    _count_lanes(buffer, 16 * packs, table)
                    start += 64 * packs
                for item in range(start, end):
                    found = hamming_distance(queries[i], words, item)
                    mark = np.int64(is_relevant(labels, i, item))
                    table[found | mark << bit] += ONE
        for i in range(chunk * size, last):
            table = both[i - chunk * size]
            for steps in range(bits + 1):
                relevant[i, steps] = table[second + steps]
                counts[i, steps] = table[steps] + table[second + steps]


@threaded_kernel
def listed_histograms(
    part: int,
    parts: int,
    queries: np.ndarray,
    words: np.ndarray,
    labels: Labels,
    relevant: np.ndarray,
    distances: np.ndarray,
) -> None:
    """Fill the distance of each row that a query lists, int64, and add them to the histogram of the relevant ones."""
    labels = borrowed(labels)
    for i in own_part(len(queries), part, parts):
        for place in range(labels.offsets[i], labels.offsets[i + 1]):
            found = np.int64(hamming_distance(queries[i], words, labels.rows[place]))
            distances[place - labels.offsets[0]] = found
            relevant[i, found] += ONE


@threaded_kernel
def accumulate(
    part: int, parts: int, counts: np.ndarray, relevant: np.ndarray, within: np.ndarray, groups: np.ndarray
) -> None:
    """Fill ``within`` with cumulative counts, and ``groups`` with how many distances have a relevant item."""
    for i in own_part(len(counts), part, parts):
        total = np.int64(0)
        filled = 0
        for step in range(counts.shape[1]):
            total += np.int64(counts[i, step])
            within[i, step] = total
            filled += relevant[i, step] > 0
        groups[i] = filled


@threaded_kernel
def fill_groups(
    part: int, parts: int, counts: np.ndarray, relevant: np.ndarray, offsets: np.ndarray, groups: np.ndarray
) -> None:
    """Fill the tie groups, int64 ``(4, g)``: items before, relevant before, size, relevant."""
    for i in own_part(len(counts), part, parts):
        before = np.int64(0)
        relevant_before = np.int64(0)
        group = offsets[i]
        for step in range(counts.shape[1]):
            found = np.int64(relevant[i, step])
            if found > 0:
                groups[0, group] = before
                groups[1, group] = relevant_before
                groups[2, group] = np.int64(counts[i, step])
                groups[3, group] = found
                group += 1
            before += np.int64(counts[i, step])
            relevant_before += found


@threaded_kernel
def distance_limits(
    part: int, parts: int, counts: np.ndarray, relevant: np.ndarray, rank: int, limits: np.ndarray, found: np.ndarray
) -> None:
    """Fill ``limits`` with the distance at which a rank is reached, ``found`` with how many relevant items are within.

    Picking out items pays off where they are few; otherwise the limit is the largest distance.
    """
    for i in own_part(len(counts), part, parts):
        step = 0
        total = np.int64(counts[i, 0])
        reached = np.int64(relevant[i, 0])
        while total < rank and step + 1 < counts.shape[1]:
            step += 1
            total += np.int64(counts[i, step])
            reached += np.int64(relevant[i, step])
        items = total
        for later in range(step + 1, counts.shape[1]):
            items += np.int64(counts[i, later])
        if total * SPARSE > items:
            step = counts.shape[1] - 1
            reached = np.int64(0)
            for each in range(counts.shape[1]):
                reached += np.int64(relevant[i, each])
        limits[i] = step
        found[i] = reached


@threaded_kernel
def fill_positions(
    part: int,
    parts: int,
    queries: np.ndarray,
    words: np.ndarray,
    labels: Labels,
    counts: np.ndarray,
    relevant: np.ndarray,
    limits: np.ndarray,
    offsets: np.ndarray,
    positions: np.ndarray,
) -> None:
    """Fill the positions of relevant items in the order (distance, gallery row), up to each query's distance limit.

    Every distance has one 64-bit counter: its low half is the position of the next item at that distance, its high half
    the slot for the position of the next relevant one.  Each item's position is written, and the slot advances after
    relevant ones only, which takes no branch; a spare slot behind each group takes the last write.
    """
    labels = borrowed(labels)
    items = words.shape[1]
    distances = counts.shape[1]
    for i in own_part(len(queries), part, parts):
        limit = limits[i]
        slots = np.empty(offsets[i + 1] - offsets[i] + distances + 1, np.int32)
        counters = np.empty(distances, np.uint64)
        slot = np.uint64(1)
        before = np.uint64(1)
        for step in range(distances):
            inside = step <= limit and relevant[i, step] > 0
            # Distances without relevant items write to slot 0, which is never read.
            counters[step] = ((slot if inside else np.uint64(0)) << THIRTY_TWO) | before
            before += np.uint64(counts[i, step])
            slot += np.uint64(relevant[i, step] + ONE) if inside else np.uint64(0)
        all_items = limit + 1 == distances
        buffer = np.empty(16 * PACKS, np.uint64)
        start = 0
        while items - start >= 64:
            packs = min(PACKS, (items - start) // 64)
            packed_distances(queries[i], words, start, packs, buffer)
            if all_items:
                mark_relevant(labels, i, start, packs, 15, buffer)
            for pack in range(packs):
                if all_items:
                    for lane in range(4):
                        down = np.uint64(16 * lane)
                        for entry in buffer[16 * pack : 16 * pack + 16]:
                            marked = entry >> down
                            step = marked & DISTANCE
                            counter = counters[step]
                            slots[counter >> THIRTY_TWO] = np.int32(counter & LOW)
                            counters[step] = counter + NEXT_ITEM + ((marked << SEVENTEEN) & NEXT_SLOT)
                else:
                    near = near_items(buffer, pack, limit)
                    while near:
                        item = lowest_bit(near)
                        near &= near - np.uint64(1)
                        step = lane_of(buffer, pack, item)
                        row = start + 64 * pack + item
                        taken = is_relevant(labels, i, row)
                        counter = counters[step]
                        slots[counter >> THIRTY_TWO] = np.int32(counter & LOW)
                        counters[step] = counter + NEXT_ITEM + (np.uint64(taken) << THIRTY_TWO)
            start += 64 * packs
        for row in range(start, items):
            far = hamming_distance(queries[i], words, row)
            if far <= limit:
                taken = is_relevant(labels, i, row)
                counter = counters[far]
                slots[counter >> THIRTY_TWO] = np.int32(counter & LOW)
                counters[far] = counter + NEXT_ITEM + (np.uint64(taken) << THIRTY_TWO)
        source = np.int64(1)
        target = offsets[i]
        for step in range(min(limit + 1, distances)):
            found = np.int64(relevant[i, step])
            if found > 0:
                copy(slots[source : source + found], positions[target : target + found])
                target += found
                source += found + 1


@kernel
def nearest_serial(
    queries: np.ndarray, words: np.ndarray, bits: int, k: int, ids: np.ndarray, distances: np.ndarray
) -> None:
    """Fill the first ``k`` columns with the nearest items, ties by the smaller row; k is at most n.

    Items within a distance limit are collected; once there are well more than ``k``, only the ``k`` nearest are kept,
    and the limit falls below the k-th distance.  On one thread: starting others takes longer than a query or two.
    """
    items = words.shape[1]
    tile = tile_size(words.shape[0])
    collected = np.empty((len(queries), 2 * k + 64 * NEAREST_PACKS), np.uint64)
    counts = np.zeros(len(queries), np.int64)
    limits = np.full(len(queries), bits, np.int64)
    histogram = np.empty(bits + 1, np.uint32)
    buffer = np.empty(16 * NEAREST_PACKS, np.uint64)
    for begin in range(0, items, tile):
        end = min(items, begin + tile)
        for i in range(len(queries)):
            keys, count, limit = collected[i], counts[i], limits[i]
            start = begin
            while start < end:
                packs = min(NEAREST_PACKS, (end - start) // 64)
                if packs:
                    packed_distances(queries[i], words, start, packs, buffer)
                for pack in range(packs):
                    near = near_items(buffer, pack, limit)
                    while near:
                        item = lowest_bit(near)
                        near &= near - np.uint64(1)
                        keys[count] = sort_key(lane_of(buffer, pack, item), start + 64 * pack + item)
                        count += 1
                start += 64 * packs
                if packs == 0:
                    for row in range(start, end):
                        far = hamming_distance(queries[i], words, row)
                        if far <= limit:
                            keys[count] = sort_key(np.uint64(far), row)
                            count += 1
                    start = end
                # The first cut comes as soon as there are k, as it sets the limit; later ones once they pay off.
                if count >= 2 * k or (limit == bits and count >= k):
                    limit = keep_by_counting(keys[:count], k, histogram) - 1
                    count = k
            counts[i], limits[i] = count, limit
    nearest = np.empty(k, np.uint64)
    for i in range(len(queries)):
        keep_by_counting(collected[i, : counts[i]], k, histogram)
        sort_by_counting(collected[i, :k], nearest, histogram)
        for column in range(k):
            ids[i, column] = row_of(nearest[column])
            distances[i, column] = np.float32(order_of(nearest[column]))


@threaded_kernel
def nearest_parallel(
    part: int,
    parts: int,
    queries: np.ndarray,
    words: np.ndarray,
    bits: int,
    k: int,
    ids: np.ndarray,
    distances: np.ndarray,
) -> None:
    """Fill the first ``k`` columns like :func:`nearest_serial`, on all threads."""
    size = max(1, min(chunk_size(len(queries)), (1 << 15) // k))
    for chunk in own_part((len(queries) + size - 1) // size, part, parts):
        rows = slice(chunk * size, min(len(queries), (chunk + 1) * size))
        nearest_serial(queries[rows], words, bits, k, ids[rows], distances[rows])
