"""Compiled loops of :func:`lshbench.ranking.hamming.hamming_neighbors`; shapes as in ``hamming_kernels``."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from lshbench.kernels.hamming import LOW, ONE, THIRTY_TWO, chunk_size, tile_size
from lshbench.kernels.words import PARALLEL, distance, lane_of, lowest_bit, near_items, packed_distances

NEAREST_GROUPS = 16
"""Groups of 64 items that are worked on at a time; the threshold is set after the first lot."""


@njit(cache=True)
def _keep_nearest(entries: np.ndarray, filled: int, k: int, histogram: np.ndarray) -> int:
    """Keep the nearest ``k`` of entries (distance in the high half, row in the low) that are in order of rows.

    Returns:
        The distance of the farthest kept, which a later row has to undercut.
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
    return limit


@njit(cache=True)
def nearest_in_turn(
    queries: np.ndarray, words: np.ndarray, bits: int, k: int, ids: np.ndarray, distances: np.ndarray
) -> None:
    """Fill the first ``k`` columns with the nearest items, ties by the smaller row; k is at most n.

    Items nearer than a threshold are collected; when they are some more than k, the farthest go and the threshold falls
    to the k-th distance.  One thread: starting others takes longer than a query or two.
    """
    items = words.shape[1]
    tile = tile_size(words.shape[0])
    room = 2 * k + 64 * NEAREST_GROUPS
    kept = np.empty((len(queries), room), np.uint64)
    filled = np.zeros(len(queries), np.int64)
    limits = np.full(len(queries), bits, np.int64)
    histogram = np.empty(bits + 1, np.uint32)
    buffer = np.empty(16 * NEAREST_GROUPS, np.uint64)
    for begin in range(0, items, tile):
        end = min(items, begin + tile)
        for i in range(len(queries)):
            entries = kept[i]
            count = filled[i]
            limit = limits[i]
            start = begin
            while start < end:
                groups = min(NEAREST_GROUPS, (end - start) // 64)
                if groups:
                    packed_distances(queries[i], words, start, groups, buffer)
                for group in range(groups):
                    near = near_items(buffer, group, limit)
                    while near:
                        item = lowest_bit(near)
                        near &= near - np.uint64(1)
                        row = start + 64 * group + item
                        entries[count] = lane_of(buffer, group, item) << THIRTY_TWO | np.uint64(row)
                        count += 1
                start += 64 * groups
                if groups == 0:
                    for row in range(start, end):
                        far = distance(queries[i], words, row)
                        if far <= limit:
                            entries[count] = np.uint64(far) << THIRTY_TWO | np.uint64(row)
                            count += 1
                    start = end
                # The first cut comes as soon as there are k, later ones when they are worth it.
                if count >= 2 * k or (limit == bits and count >= k):
                    limit = _keep_nearest(entries, count, k, histogram) - 1
                    count = k
            filled[i] = count
            limits[i] = limit
    for i in range(len(queries)):
        _keep_nearest(kept[i], filled[i], k, histogram)
        histogram[:] = 0
        for entry in kept[i, :k]:
            histogram[entry >> THIRTY_TWO] += ONE
        place = np.uint32(0)
        for step in range(bits + 1):
            count_here = histogram[step]
            histogram[step] = place
            place += count_here
        for entry in kept[i, :k]:
            step = entry >> THIRTY_TWO
            column = histogram[step]
            ids[i, column] = np.int64(entry & LOW)
            distances[i, column] = np.float32(step)
            histogram[step] = column + ONE


@njit(cache=True, parallel=PARALLEL)
def nearest(queries: np.ndarray, words: np.ndarray, bits: int, k: int, ids: np.ndarray, distances: np.ndarray) -> None:
    """Do what :func:`nearest_in_turn` does with all threads."""
    size = max(1, min(chunk_size(len(queries)), (1 << 15) // k))
    for chunk in prange((len(queries) + size - 1) // size):
        rows = slice(chunk * size, min(len(queries), (chunk + 1) * size))
        nearest_in_turn(queries[rows], words, bits, k, ids[rows], distances[rows])
