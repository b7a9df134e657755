"""The k smallest of many distinct sort keys (:mod:`lshbench.kernels.keys`), collected in bounded room.

A collection is an array of keys (:func:`room_for` says how long), how many it holds, and a limit: only keys below it
can still be among the k smallest.  It starts with 0 and :data:`NO_LIMIT`.  Hamming distances are few and rows come in
order: there, counting selects and sorts (:func:`keep_by_counting`, :func:`sort_by_counting`).
"""

from __future__ import annotations

import numpy as np

from lshbench.kernels.compilation import kernel
from lshbench.kernels.keys import order_of

IN_ORDER = 16
"""Values of k up to which keeping the collection in order is quicker than selecting from a larger one."""

NO_LIMIT = np.uint64(0xFFFFFFFFFFFFFFFF)
"""Above any key: the limit of a collection of fewer than k keys."""

ONE = np.uint32(1)


@kernel
def room_for(k: int) -> int:
    """Return how many keys a collection of the ``k`` smallest has to have room for."""
    return max(4 * k, 32)


@kernel
def select(keys: np.ndarray, k: int) -> None:
    """Bring the ``k`` smallest of distinct keys to the front, the largest of them last (Hoare's quickselect)."""
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
    """Add a key below the limit to a collection; return how many it holds then, and its limit."""
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
    """Return the ``k`` smallest keys of a collection in order, or all that there are: a view of its room."""
    if count > k:
        select(room[:count], k)
        count = k
    found = room[:count]
    if k > IN_ORDER:
        found.sort()
    return found


@kernel
def keep_by_counting(keys: np.ndarray, k: int, histogram: np.ndarray) -> int:
    """Bring the ``k`` smallest of keys whose rows ascend to the front, in the order given.

    Args:
        histogram: uint32, as long as there are values to order by.

    Returns:
        The largest value kept, which a later row has to undercut.
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
    """Fill ``out`` with keys whose rows ascend, in order; the histogram is that of :func:`keep_by_counting`."""
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
