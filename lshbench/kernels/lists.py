"""Kernels of :mod:`lshbench.ranking.lists`: sort candidate lists by (distance, row), group ties, write the nearest."""

from __future__ import annotations

import numpy as np

from lshbench.kernels.frames import borrowed
from lshbench.kernels.keys import ascending, ascending_value, order_of, row_of, sort_key, sort_whole
from lshbench.kernels.labels import Labels, find_listed, is_relevant
from lshbench.kernels.threads import own_part, threaded_kernel


def _queries(offsets: np.ndarray, *_: object) -> int:
    """Return how many queries lists are of."""
    return len(offsets) - 1


@threaded_kernel(rounds=_queries)
def sort_lists(
    part: int,
    parts: int,
    offsets: np.ndarray,
    rows: np.ndarray,
    distances: np.ndarray,
    keys: np.ndarray,
    twice: np.ndarray,
) -> None:
    """Fill ``keys`` with each query's sort keys, sorted; set ``twice`` for a query whose list repeats a candidate."""
    for i in own_part(len(offsets) - 1, part, parts):
        for j in range(offsets[i], offsets[i + 1]):
            # -0 has to tie with 0, but would sort before it: adding 0 makes it 0.
            keys[j] = sort_key(ascending(distances[j] + np.float32(0)), rows[j])
        own = keys[offsets[i] : offsets[i + 1]]
        sort_whole(own)
        for j in range(1, len(own)):
            if own[j] == own[j - 1]:
                twice[i] = True


@threaded_kernel(rounds=_queries)
def count_groups(
    part: int, parts: int, offsets: np.ndarray, keys: np.ndarray, labels: Labels, counts: np.ndarray
) -> None:
    """Fill columns 1 to q of ``counts`` int64 ``(2, q + 1)``: tie groups with a relevant item, and relevant items."""
    labels = borrowed(labels)
    for i in own_part(len(offsets) - 1, part, parts):
        groups = 0
        relevant = 0
        last = np.uint64(0)
        for key in keys[offsets[i] : offsets[i + 1]]:
            if is_relevant(labels, i, row_of(key)):
                groups += relevant == 0 or order_of(key) != last
                last = order_of(key)
                relevant += 1
        counts[0, i + 1] = groups
        counts[1, i + 1] = relevant


@threaded_kernel(rounds=_queries)
def fill_groups(
    part: int,
    parts: int,
    offsets: np.ndarray,
    keys: np.ndarray,
    labels: Labels,
    slots: np.ndarray,
    with_positions: bool,
    groups: np.ndarray,
    positions: np.ndarray,
) -> None:
    """Fill the tie groups (items before, relevant before, size, relevant) and the positions of relevant items.

    Args:
        slots: int64 ``(2, q + 1)``, where each query's groups and positions begin.
    """
    labels = borrowed(labels)
    for i in own_part(len(offsets) - 1, part, parts):
        own = keys[offsets[i] : offsets[i + 1]]
        group = slots[0, i]
        slot = slots[1, i]
        before = 0
        relevant_before = 0
        while before < len(own):
            end = before
            relevant = 0
            while end < len(own) and order_of(own[end]) == order_of(own[before]):
                row = row_of(own[end])
                end += 1
                if is_relevant(labels, i, row):
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


@threaded_kernel(rounds=_queries)
def write_nearest(
    part: int, parts: int, offsets: np.ndarray, keys: np.ndarray, ids: np.ndarray, distances: np.ndarray
) -> None:
    """Write the rows and distances of each query's nearest candidates, whose keys come first."""
    for i in own_part(len(offsets) - 1, part, parts):
        for column in range(min(ids.shape[1], offsets[i + 1] - offsets[i])):
            key = keys[offsets[i] + column]
            ids[i, column] = row_of(key)
            distances[i, column] = ascending_value(order_of(key))


@threaded_kernel(rounds=_queries)
def find_in_order(
    part: int, parts: int, offsets: np.ndarray, keys: np.ndarray, labels: Labels, slots: np.ndarray, order: np.ndarray
) -> None:
    """Fill ``order`` int64 with the places, in the lists of relevant rows, of those that are ranked, nearest first.

    Args:
        slots: int64 ``(q + 1,)``, where each query's begin.
    """
    labels = borrowed(labels)
    for i in own_part(len(offsets) - 1, part, parts):
        slot = slots[i]
        for key in keys[offsets[i] : offsets[i + 1]]:
            place = find_listed(labels, i, row_of(key))
            if place >= 0:
                order[slot] = place
                slot += 1
