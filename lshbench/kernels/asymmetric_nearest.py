"""Kernels of :mod:`lshbench.ranking.asymmetric_codes`: the k nearest gallery codes of each query.

Distances are added up for some codes at a time (:mod:`lshbench.kernels.asymmetric_sums`) and looked at one by one only
where some of a block are below the query's k-th so far.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads

from lshbench.kernels.asymmetric_sums import EXACT, fill_sums, fill_table, make_table
from lshbench.kernels.compilation import copy, kernel
from lshbench.kernels.keys import order_of, row_of, sort_key
from lshbench.kernels.lanes import EIGHT
from lshbench.kernels.threads import own_part, threaded_kernel
from lshbench.kernels.topk import NO_LIMIT, collect, joined, room_for, select, smallest

TILE = 512
"""Items whose sums are held at a time."""

BLOCK = 32
"""Distances that are compared with a query's k-th at once, before any of them is looked at."""

ZERO = np.uint32(0)


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
        units: float64, filled with each query's.
        rooms, counts: a collection (:mod:`lshbench.kernels.topk`) for each query; filled.
    """
    table = make_table(codes.shape[1], EIGHT)
    fill_table(projections, units, table)
    sums = np.empty((EIGHT, TILE), np.uint32)
    counts[:] = 0
    limits = np.full(EIGHT, NO_LIMIT)
    farthest = np.full(EIGHT, np.uint32(EXACT))  # distances from this one on are no longer among the nearest
    for begin in range(start, stop, TILE):
        size = min(TILE, stop - begin)
        fill_sums(table, codes, begin, begin + size, sums)
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
        units: float64 ``(q,)``, filled; NaN stands for a query that isn't finite, whose ids and distances mean nothing.
    """
    rooms = np.empty((EIGHT, room_for(k)), np.uint64)
    counts = np.empty(EIGHT, np.int64)
    for start in range(0, len(projections), EIGHT):
        asked = slice(start, min(start + EIGHT, len(projections)))
        _collect(projections[asked], codes, 0, len(codes), k, units[asked], rooms, counts)
        for i in range(start, min(start + EIGHT, len(projections))):
            _write(smallest(rooms[i - start], counts[i - start], k), units[i], ids[i], distances[i])


@threaded_kernel
def nearest_parallel(
    part: int,
    parts: int,
    projections: np.ndarray,
    codes: np.ndarray,
    k: int,
    units: np.ndarray,
    ids: np.ndarray,
    distances: np.ndarray,
) -> None:
    """Write the first ``k`` columns like :func:`nearest_serial`, on all threads, each with some of the queries."""
    groups = own_part((len(projections) + EIGHT - 1) // EIGHT, part, parts)
    own = slice(EIGHT * groups.start, min(EIGHT * groups.stop, len(projections)))
    nearest_serial(projections[own], codes, k, units[own], ids[own], distances[own])


@threaded_kernel
def _collect_part(
    part: int,
    parts: int,
    projections: np.ndarray,
    codes: np.ndarray,
    k: int,
    units: np.ndarray,
    rooms: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Collect each query's ``k`` nearest of one part of the gallery."""
    rows = own_part(len(codes), part, parts)
    for first in range(0, len(projections), EIGHT):
        own = slice(first, min(first + EIGHT, len(projections)))
        found = np.empty(EIGHT)  # each part's own, so that no two threads write to one place
        _collect(projections[own], codes, rows.start, rows.stop, k, found, rooms[part, own], counts[part, own])
        if part == 0:
            copy(found, units[own])


@kernel
def _write_joined(
    rooms: np.ndarray, counts: np.ndarray, k: int, units: np.ndarray, ids: np.ndarray, distances: np.ndarray
) -> None:
    for i in range(len(units)):
        keys = joined(rooms, counts, i)
        if len(keys) > k:
            select(keys, k)
            keys = keys[:k]
        keys.sort()
        _write(keys, units[i], ids[i], distances[i])


def nearest_of_few(
    projections: np.ndarray, codes: np.ndarray, k: int, units: np.ndarray, ids: np.ndarray, distances: np.ndarray
) -> None:
    """Write the first ``k`` columns like :func:`nearest_serial`, on all threads, each with a part of the gallery."""
    parts = get_num_threads()
    rooms = np.empty((parts, len(projections), room_for(k)), np.uint64)
    counts = np.zeros((parts, len(projections)), np.int64)
    _collect_part(projections, codes, k, units, rooms, counts)
    _write_joined(rooms, counts, k, units, ids, distances)
