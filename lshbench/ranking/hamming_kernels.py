"""Compiled loops of :mod:`lshbench.ranking.hamming`.

Shapes throughout: query words uint64 ``(q, words)``, gallery words uint64 ``(words, n)`` as
:mod:`lshbench.ranking.words` makes them, histograms uint32 ``(q, bits + 1)``.  Queries are spread over the threads in
chunks, and a chunk goes through the gallery tile by tile, so that a tile is read from the second-level cache.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from lshbench.ranking.labels import fill_relevant
from lshbench.ranking.words import LANE, distance, packed_distances

CHUNK = 32
"""Queries that share a tile."""

TILE_WORDS = 1 << 15
"""Words of a tile: 256 KB."""

BLOCK = 1024
"""Entries of four distances that are worked on at a time."""

PAIR_BITS = 127
"""Longest codes whose distances are counted two at a time."""

PAIR_ITEMS = 4096
"""Fewest items for which clearing and adding up the table of pairs pays."""

SIXTEEN, THIRTY_TWO, FORTY_EIGHT = np.uint64(16), np.uint64(32), np.uint64(48)
LOW = np.uint64(0xFFFFFFFF)
ONE = np.uint32(1)


@njit(cache=True)
def _chunk_size(queries: int) -> int:
    # Few queries: one a chunk, so that all threads have some.
    return max(1, min(CHUNK, queries // 16))


@njit(cache=True)
def _tile_size(planes: int) -> int:
    return max(4 * BLOCK, TILE_WORDS // planes)


@njit(cache=True)
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
    There are two tables by turns: an increment that follows another of the same counter has to wait for it, which
    equal codes in a row would make the rule.
    """
    half_table = len(pairs) // 2
    second = np.uint64(half_table)
    up = np.uint64(shift)
    one = np.uint16(1)
    pairs[:] = 0
    while stop - start >= 8:
        half = min(BLOCK // 2, (stop - start) // 8)
        packed_distances(query, words, start, half, buffer[:half])
        packed_distances(query, words, start + 4 * half, half, buffer[half : 2 * half])
        for j in range(half):
            buffer[j] |= buffer[half + j] << up
        for j in range(half):
            entry = buffer[j]
            pairs[entry & LANE] += one
            pairs[second + ((entry >> SIXTEEN) & LANE)] += one
            pairs[(entry >> THIRTY_TWO) & LANE] += one
            pairs[second + (entry >> FORTY_EIGHT)] += one
        start += 8 * half
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


@njit(cache=True)
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
    while stop - start >= 4:
        quarter = min(BLOCK, (stop - start) // 4)
        packed_distances(query, words, start, quarter, buffer[:quarter])
        for j in range(quarter):
            entry = buffer[j]
            histogram[entry & LANE] += ONE
            histogram[(entry >> SIXTEEN) & LANE] += ONE
            histogram[(entry >> THIRTY_TWO) & LANE] += ONE
            histogram[entry >> FORTY_EIGHT] += ONE
        start += 4 * quarter
    for item in range(start, stop):
        histogram[distance(query, words, item)] += ONE


@njit(cache=True, parallel=True)
def slice_histograms(
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
    tile = _tile_size(words.shape[0])
    size = _chunk_size(len(queries))
    shift = 0
    if bits <= PAIR_BITS:
        while 1 << shift <= bits:
            shift += 1
    table = (((bits << shift) | bits) // 32 + 1) * 32 if shift else 0
    for chunk in prange((len(queries) + size - 1) // size):
        pairs = np.empty(2 * table, np.uint16)
        buffer = np.empty(BLOCK, np.uint64)
        last = min(len(queries), (chunk + 1) * size)
        for begin in range(0, items, tile):
            end = min(items, begin + tile)
            for i in range(chunk * size, last):
                low = min(max(starts[i], begin), end)
                high = min(max(stops[i], low), end)
                _count(queries[i], words, begin, low, shift, counts[i], pairs, buffer)
                _count(queries[i], words, low, high, shift, relevant[i], pairs, buffer)
                _count(queries[i], words, high, end, shift, counts[i], pairs, buffer)
        for i in range(chunk * size, last):
            counts[i] += relevant[i]


@njit(cache=True, parallel=True)
def masked_histograms(
    queries: np.ndarray,
    words: np.ndarray,
    query_masks: np.ndarray,
    gallery_masks: np.ndarray,
    bits: int,
    counts: np.ndarray,
    relevant: np.ndarray,
) -> None:
    """Fill the histograms of all items and of those that share a label with the query.

    Both come from one table: an item's counter is its distance, one table further on where it is relevant.
    """
    items = words.shape[1]
    tile = _tile_size(words.shape[0])
    size = _chunk_size(len(queries))
    no_labels = np.empty(0, np.int32)
    for chunk in prange((len(queries) + size - 1) // size):
        buffer = np.empty(BLOCK, np.uint64)
        lanes = buffer.view(np.uint16)
        flags = np.empty(4 * BLOCK, np.uint8)
        last = min(len(queries), (chunk + 1) * size)
        both = np.zeros((last - chunk * size, 2 * (bits + 1)), np.uint32)
        for begin in range(0, items, tile):
            end = min(items, begin + tile)
            for i in range(chunk * size, last):
                table = both[i - chunk * size]
                start = begin
                while start < end:
                    quarter = min(BLOCK, (end - start) // 4)
                    if quarter:
                        packed_distances(queries[i], words, start, quarter, buffer[:quarter])
                        fill_relevant(
                            0, query_masks[i], no_labels, gallery_masks, start, flags[: 4 * quarter]
                        )
                        for j in range(quarter):
                            for lane in range(4):
                                table[lanes[4 * j + lane] + flags[lane * quarter + j] * (bits + 1)] += ONE
                    else:
                        fill_relevant(0, query_masks[i], no_labels, gallery_masks, start, flags[: end - start])
                        for item in range(start, end):
                            found = distance(queries[i], words, item)
                            table[found + flags[item - start] * (bits + 1)] += ONE
                        start = end
                    start += 4 * quarter
        for i in range(chunk * size, last):
            table = both[i - chunk * size]
            relevant[i] = table[bits + 1 :]
            counts[i] = table[: bits + 1] + table[bits + 1 :]


@njit(cache=True, parallel=True)
def accumulate(counts: np.ndarray, relevant: np.ndarray, within: np.ndarray, groups: np.ndarray) -> None:
    """Fill ``within`` with running totals, and ``groups`` with how many distances have a relevant item."""
    for i in prange(len(counts)):
        total = np.int64(0)
        filled = 0
        for step in range(counts.shape[1]):
            total += np.int64(counts[i, step])
            within[i, step] = total
            filled += relevant[i, step] > 0
        groups[i] = filled


@njit(cache=True, parallel=True)
def fill_groups(counts: np.ndarray, relevant: np.ndarray, offsets: np.ndarray, groups: np.ndarray) -> None:
    """Fill ``groups`` int64 ``(4, g)``: items before, relevant before, items, relevant."""
    for i in prange(len(counts)):
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


@njit(cache=True, parallel=True)
def distance_limits(
    counts: np.ndarray, relevant: np.ndarray, rank: int, limits: np.ndarray, found: np.ndarray
) -> None:
    """Fill ``limits`` with the distance at which a rank is reached, ``found`` with the relevant items up to there."""
    for i in prange(len(counts)):
        step = 0
        total = np.int64(counts[i, 0])
        reached = np.int64(relevant[i, 0])
        while total < rank and step + 1 < counts.shape[1]:
            step += 1
            total += np.int64(counts[i, step])
            reached += np.int64(relevant[i, step])
        limits[i] = step
        found[i] = reached


@njit(cache=True)
def _any_below(lanes: np.ndarray, limit: int, quarter: int, near: np.ndarray) -> None:
    """Tell, for every 16 entries, whether any of their 64 distances is at most the limit."""
    for group in range((quarter + 15) // 16):
        least = np.uint16(0xFFFF)
        for value in lanes[64 * group : min(64 * group + 64, 4 * quarter)]:
            least = min(least, value)
        near[group] = least <= limit


@njit(cache=True, parallel=True)
def fill_positions(
    queries: np.ndarray,
    words: np.ndarray,
    query_labels: np.ndarray,
    gallery_labels: np.ndarray,
    query_masks: np.ndarray,
    gallery_masks: np.ndarray,
    counts: np.ndarray,
    relevant: np.ndarray,
    limits: np.ndarray,
    offsets: np.ndarray,
    positions: np.ndarray,
) -> None:
    """Fill the positions of relevant items in the order (distance, gallery row), up to each query's distance limit.

    Every distance has one 64-bit counter: its low half is the position of the next item at that distance, its high half
    the slot in which the next relevant one's position goes.  Each item's position is written, and the slot moves on
    after relevant ones only, so that nothing depends on a branch; a spare slot behind each group takes the last write.
    """
    items = words.shape[1]
    distances = counts.shape[1]
    single = gallery_masks.shape[0] == 0
    for i in prange(len(queries)):
        limit = limits[i]
        slots = np.empty(offsets[i + 1] - offsets[i] + distances + 1, np.int32)
        counters = np.empty(distances, np.uint64)
        slot = np.uint64(1)
        before = np.uint64(1)
        for step in range(distances):
            inside = step <= limit and relevant[i, step] > 0
            # Slot 0 takes what nobody asks for: nothing relevant moves it on.
            counters[step] = ((slot if inside else np.uint64(0)) << THIRTY_TWO) | before
            before += np.uint64(counts[i, step])
            slot += np.uint64(relevant[i, step] + ONE) if inside else np.uint64(0)
        buffer = np.empty(BLOCK, np.uint64)
        lanes = buffer.view(np.uint16)
        near = np.ones(BLOCK // 16, np.bool_)
        flags = np.empty(4 * BLOCK, np.uint8)
        label = query_labels[i] if single else np.int32(0)
        start = 0
        while start < items:
            # The last items, fewer than four, come with some that are counted already.
            quarter = min(BLOCK, (items - start) // 4)
            block = 4 * quarter if quarter else items - start
            fill_relevant(label, query_masks[i], gallery_labels, gallery_masks, start, flags[:block])
            if quarter:
                packed_distances(queries[i], words, start, quarter, buffer[:quarter])
                if limit + 1 < distances:
                    _any_below(lanes, limit, quarter, near)
                for lane in range(4):
                    own = flags[lane * quarter : (lane + 1) * quarter]
                    for group in range((quarter + 15) // 16):
                        if near[group]:
                            for j in range(16 * group, min(16 * group + 16, quarter)):
                                step = lanes[4 * j + lane]
                                counter = counters[step]
                                slots[counter >> THIRTY_TWO] = np.int32(counter & LOW)
                                taken = np.uint64(own[j] & np.uint8(step <= limit))
                                counters[step] = counter + np.uint64(1) + (taken << THIRTY_TWO)
            else:
                for item in range(block):
                    far = distance(queries[i], words, start + item)
                    counter = counters[far]
                    slots[counter >> THIRTY_TWO] = np.int32(counter & LOW)
                    taken = np.uint64(flags[item] & np.uint8(far <= limit))
                    counters[far] = counter + np.uint64(1) + (taken << THIRTY_TWO)
            start += block
        source = 1
        target = offsets[i]
        for step in range(min(limit + 1, distances)):
            found = np.int64(relevant[i, step])
            if found > 0:
                positions[target : target + found] = slots[source : source + found]
                target += found
                source += found + 1


@njit(cache=True)
def _keep_nearest(entries: np.ndarray, filled: int, k: int, histogram: np.ndarray) -> tuple[int, int]:
    """Keep the nearest ``k`` of entries (distance in the high half, row in the low) that are in order of rows.

    Returns:
        The distance of the farthest kept, which a later row has to undercut, and how many lie below that distance.
    """
    histogram[:] = 0
    for entry in entries[:filled]:
        histogram[entry >> THIRTY_TWO] += ONE
    limit = 0
    below = np.int64(0)
    while below + np.int64(histogram[limit]) < k:
        below += np.int64(histogram[limit])
        limit += 1
    ties = k - below
    kept = 0
    for j in range(filled):
        entry = entries[j]
        far = np.int64(entry >> THIRTY_TWO)
        if far < limit:
            entries[kept] = entry
            kept += 1
        elif far == limit and ties > 0:
            entries[kept] = entry
            kept += 1
            ties -= 1
    return limit, below


@njit(cache=True, parallel=True)
def nearest(
    queries: np.ndarray, words: np.ndarray, bits: int, k: int, ids: np.ndarray, distances: np.ndarray
) -> None:
    """Fill the first ``k`` columns with the nearest items, ties by the smaller row; k is at most n.

    Items nearer than a threshold are collected; when they are some more than k, the farthest go and the threshold falls
    to the k-th distance.
    """
    items = words.shape[1]
    tile = _tile_size(words.shape[0])
    size = max(1, min(_chunk_size(len(queries)), (1 << 15) // k))
    quarters = BLOCK // 4
    room = 2 * k + 4 * quarters
    for chunk in prange((len(queries) + size - 1) // size):
        last = min(len(queries), (chunk + 1) * size)
        kept = np.empty((last - chunk * size, room + 1), np.uint64)
        filled = np.zeros(last - chunk * size, np.int64)
        limits = np.full(last - chunk * size, bits, np.int64)
        histogram = np.empty(bits + 1, np.uint32)
        buffer = np.empty(quarters, np.uint64)
        lanes = buffer.view(np.uint16)
        near = np.empty(quarters // 16, np.bool_)
        for begin in range(0, items, tile):
            end = min(items, begin + tile)
            for i in range(chunk * size, last):
                own = i - chunk * size
                entries = kept[own]
                count = filled[own]
                limit = limits[own]
                start = begin
                while start < end:
                    quarter = min(quarters, (end - start) // 4)
                    if quarter:
                        packed_distances(queries[i], words, start, quarter, buffer[:quarter])
                        _any_below(lanes, limit, quarter, near)
                        for lane in range(4):
                            first = start + lane * quarter
                            for group in range((quarter + 15) // 16):
                                if near[group]:
                                    for j in range(16 * group, min(16 * group + 16, quarter)):
                                        far = np.int64(lanes[4 * j + lane])
                                        entries[count] = np.uint64((far << 32) | (first + j))
                                        count += far <= limit
                        start += 4 * quarter
                    else:
                        for item in range(start, end):
                            far = distance(queries[i], words, item)
                            entries[count] = np.uint64((far << 32) | item)
                            count += far <= limit
                        start = end
                    # The first cut comes as soon as there are k, later ones when they are worth it.
                    if count >= 2 * k or (limit == bits and count >= k):
                        limit = _keep_nearest(entries, count, k, histogram)[0] - 1
                        count = k
                filled[own] = count
                limits[own] = limit
        for i in range(chunk * size, last):
            own = i - chunk * size
            _keep_nearest(kept[own], filled[own], k, histogram)
            histogram[:] = 0
            for entry in kept[own, :k]:
                histogram[entry >> THIRTY_TWO] += ONE
            place = np.uint32(0)
            for step in range(bits + 1):
                count_here = histogram[step]
                histogram[step] = place
                place += count_here
            for entry in kept[own, :k]:
                step = entry >> THIRTY_TWO
                column = histogram[step]
                ids[i, column] = np.int64(entry & LOW)
                distances[i, column] = np.float32(step)
                histogram[step] = column + ONE
