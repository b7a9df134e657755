"""Top-k selection: the k smallest of many distinct sort keys (:mod:`lshbench.kernels.keys`), in bounded memory.

A collection is a buffer of keys (``room``, as long as :func:`room_for` says), the number of keys in it, and a limit:
only keys below the limit can still be among the k smallest.  A new one holds 0 keys and has the limit
:data:`NO_LIMIT`.  Hamming distances take few values and rows come in ascending order, so that they are selected and
sorted by counting (:func:`keep_by_counting`, :func:`sort_by_counting`).
"""

from __future__ import annotations

import numpy as np

from lshbench.kernels.compilation import copy, kernel
from lshbench.kernels.keys import THIRTY_TWO, order_of

IN_ORDER = 16
"""Largest k for which keeping the collection sorted is faster than selecting from a larger buffer."""

NO_LIMIT = np.uint64(0xFFFFFFFFFFFFFFFF)
"""Above any key: the limit of a collection of fewer than k keys."""

CROWDED = 16
"""Keys in one bucket from which on they are not sorted by buckets."""

ONE = np.uint32(1)


@kernel
def room_for(k: int) -> int:
    """Return the buffer length of a collection of the ``k`` smallest keys."""
    return max(4 * k, 32)


def new_collections(number: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rooms, counts and limits of as many new collections of the ``k`` smallest keys."""
    return np.empty((number, room_for(k)), np.uint64), np.zeros(number, np.int64), np.full(number, NO_LIMIT)


@kernel
def select(keys: np.ndarray, k: int) -> None:
    """Move the ``k`` smallest of distinct keys to the front, the largest of these last (Hoare's quickselect)."""
    low = 0
    high = len(keys) - 1
    target = k - 1
    while low < high:
        middle = (low + high) >> 1
        a, b, c = keys[low], keys[middle], keys[high]
        pivot = max(min(a, b), min(max(a, b), c))
        i, j = low, high
        while i <= j:
            while keys[i] < pivot:
                i += 1
            while keys[j] > pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                i += 1
                j -= 1
        if target <= j:
            high = j
        elif target >= i:
            low = i
        else:
            return


@kernel
def collect(key: np.uint64, room: np.ndarray, count: int, limit: np.uint64, k: int) -> tuple[int, np.uint64]:
    """Add a key below the limit to a collection; return its new number of keys and its new limit."""
    if k <= IN_ORDER:
        place = min(count, k - 1)
        while place > 0 and room[place - 1] > key:
            room[place] = room[place - 1]
            place -= 1
        room[place] = key
        count = min(count + 1, k)
        return count, room[k - 1] if count == k else limit
    room[count] = key
    count += 1
    if count < len(room):
        return count, limit
    select(room, k)
    return k, room[k - 1]


@kernel
def smallest(room: np.ndarray, count: int, k: int) -> np.ndarray:
    """Return the ``k`` smallest keys of a collection, sorted, or all if it holds fewer: a view of its buffer."""
    if count > k:
        select(room[:count], k)
        count = k
    found = room[:count]
    if k > IN_ORDER:
        found.sort()
    return found


@kernel
def joined(rooms: np.ndarray, counts: np.ndarray, i: int) -> np.ndarray:
    """Return the keys of a query's collections, one of each part of the gallery, one after the other.

    Args:
        rooms: uint64 ``(parts, q, room)``.
        counts: int64 ``(parts, q)``.
    """
    parts, _, room = rooms.shape
    keys = np.empty(parts * room, np.uint64)
    total = 0
    for part in range(parts):
        count = counts[part, i]
        copy(rooms[part, i], keys[total : total + count])
        total += count
    return keys[:total]


@kernel
def sort_by_buckets(keys: np.ndarray) -> None:
    """Sort distinct keys whose values spread: in as many buckets as there are keys, hardly any comparison is left."""
    if len(keys) < 2:
        return
    low, high = order_of(keys[0]), order_of(keys[0])
    for key in keys:
        low, high = min(low, order_of(key)), max(high, order_of(key))
    scale = (np.uint64(len(keys)) << THIRTY_TWO) // (high - low + np.uint64(1))
    buckets = np.empty(len(keys), np.uint32)
    places = np.zeros(len(keys) + 1, np.int32)
    for i in range(len(keys)):
        buckets[i] = ((order_of(keys[i]) - low) * scale) >> THIRTY_TWO
        places[buckets[i] + ONE] += np.int32(1)
    for bucket in range(1, len(places)):
        if places[bucket] > CROWDED:
            keys.sort()
            return
        places[bucket] += places[bucket - 1]
    spare = keys.copy()
    for i in range(len(keys)):
        keys[places[buckets[i]]] = spare[i]
        places[buckets[i]] += np.int32(1)
    for i in range(1, len(keys)):
        key = keys[i]
        place = i
        while place > 0 and keys[place - 1] > key:
            keys[place] = keys[place - 1]
            place -= 1
        keys[place] = key


@kernel
def keep_by_counting(keys: np.ndarray, k: int, histogram: np.ndarray) -> int:
    """Move the ``k`` smallest of keys whose rows ascend to the front, in the order given.

    Args:
        histogram: uint32, a counter for each possible value; overwritten.

    Returns:
        The largest value kept: a later row needs a smaller one to be among the ``k``.
    """
    histogram[:] = 0
    for key in keys:
        histogram[order_of(key)] += ONE
    limit = 0
    below = np.int64(0)
    while below + np.int64(histogram[limit]) < k:
        below += np.int64(histogram[limit])
        limit += 1
    ties = k - below
    kept = 0
    for key in keys:
        order = np.int64(order_of(key))
        if order < limit:
            keys[kept] = key
            kept += 1
        elif order == limit and ties > 0:
            keys[kept] = key
            kept += 1
            ties -= 1
    return limit


@kernel
def sort_by_counting(keys: np.ndarray, out: np.ndarray, histogram: np.ndarray) -> None:
    """Fill ``out`` with keys whose rows ascend, sorted; the histogram is as for :func:`keep_by_counting`."""
    histogram[:] = 0
    for key in keys:
        histogram[order_of(key)] += ONE
    place = np.uint32(0)
    for order in range(len(histogram)):
        count = histogram[order]
        histogram[order] = place
        place += count
    for key in keys:
        order = order_of(key)
        out[histogram[order]] = key
        histogram[order] += ONE
