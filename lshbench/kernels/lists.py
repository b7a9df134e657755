"""Compiled loops of :mod:`lshbench.ranking.lists`.

Keys are uint64: the distance's :func:`lshbench.kernels.keys.ascending_key` above, the gallery row below.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from lshbench.kernels.keys import LOW, THIRTY_TWO, ascending_key, key_value
from lshbench.kernels.labels import is_relevant
from lshbench.kernels.words import PARALLEL


@njit(cache=True, parallel=PARALLEL)
def sort_lists(
    offsets: np.ndarray, rows: np.ndarray, distances: np.ndarray, keys: np.ndarray, twice: np.ndarray
) -> None:
    """Fill ``keys`` with each query's sorted keys; ``twice`` tells where a (distance, row) comes twice."""
    for i in prange(len(offsets) - 1):
        for j in range(offsets[i], offsets[i + 1]):
            # Adding 0 turns -0 into 0, which it has to tie with.
            keys[j] = ascending_key(distances[j] + np.float32(0)) << THIRTY_TWO | np.uint64(rows[j])
        own = keys[offsets[i] : offsets[i + 1]]
        own.sort()
        for j in range(1, len(own)):
            if own[j] == own[j - 1]:
                twice[i] = True


@njit(cache=True, parallel=PARALLEL)
def count_groups(
    offsets: np.ndarray,
    keys: np.ndarray,
    query_labels: np.ndarray,
    gallery_labels: np.ndarray,
    query_masks: np.ndarray,
    gallery_masks: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Fill columns 1 to q of ``counts`` int64 ``(2, q + 1)``: groups with a relevant item, and relevant items."""
    single = gallery_masks.shape[0] == 0
    for i in prange(len(offsets) - 1):
        label = query_labels[i] if single else np.int32(0)
        groups = 0
        relevant = 0
        last = np.uint64(0)
        for key in keys[offsets[i] : offsets[i + 1]]:
            row = np.int64(key & LOW)
            if is_relevant(label, query_masks[i], gallery_labels, gallery_masks, row):
                groups += relevant == 0 or key >> THIRTY_TWO != last
                last = key >> THIRTY_TWO
                relevant += 1
        counts[0, i + 1] = groups
        counts[1, i + 1] = relevant


@njit(cache=True, parallel=PARALLEL)
def fill_groups(
    offsets: np.ndarray,
    keys: np.ndarray,
    query_labels: np.ndarray,
    gallery_labels: np.ndarray,
    query_masks: np.ndarray,
    gallery_masks: np.ndarray,
    slots: np.ndarray,
    with_positions: bool,
    groups: np.ndarray,
    positions: np.ndarray,
) -> None:
    """Fill the groups (before, relevant before, size, relevant) and the positions of relevant items.

    Args:
        slots: int64 ``(2, q + 1)``, where each query's groups and positions begin.
    """
    single = gallery_masks.shape[0] == 0
    for i in prange(len(offsets) - 1):
        label = query_labels[i] if single else np.int32(0)
        own = keys[offsets[i] : offsets[i + 1]]
        group = slots[0, i]
        slot = slots[1, i]
        before = 0
        relevant_before = 0
        while before < len(own):
            end = before
            relevant = 0
            while end < len(own) and own[end] >> THIRTY_TWO == own[before] >> THIRTY_TWO:
                row = np.int64(own[end] & LOW)
                end += 1
                if is_relevant(label, query_masks[i], gallery_labels, gallery_masks, row):
                    if with_positions:
                        positions[slot + relevant_before + relevant] = end
                    relevant += 1
            if relevant > 0:
                groups[0, group] = before
                groups[1, group] = relevant_before
                groups[2, group] = end - before
                groups[3, group] = relevant
                group += 1
            before = end
            relevant_before += relevant


@njit(cache=True, parallel=PARALLEL)
def take_nearest(offsets: np.ndarray, keys: np.ndarray, ids: np.ndarray, distances: np.ndarray) -> None:
    """Copy the first keys of each query."""
    for i in prange(len(offsets) - 1):
        for column in range(min(ids.shape[1], offsets[i + 1] - offsets[i])):
            key = keys[offsets[i] + column]
            ids[i, column] = np.int64(key & LOW)
            distances[i, column] = key_value(~(key >> THIRTY_TWO) & LOW)
