"""Kernels of :mod:`lshbench.ranking.cosine`: the k most similar gallery items of each query.

Of many queries the similarities come from matrix products; a few are compared with the gallery here, in one pass over
it, as a product of few rows reads and rearranges the whole gallery for little work.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, prange

from lshbench.kernels.compilation import kernel
from lshbench.kernels.cosine import similarity_of
from lshbench.kernels.keys import descending, descending_value, order_of, row_of, sort_key
from lshbench.kernels.topk import NO_LIMIT, collect, room_for, select, smallest

ROWS = 4
"""Gallery rows compared with a query at once: a value of the query is loaded for all of them."""

BLOCK = 32
"""Similarities that are compared with a query's k-th at once, before any of them is looked at."""


@kernel(fastmath={"reassoc", "contract", "nsz"})  # a sum's order is free, so that it can be vectorised
def _products(
    query: np.ndarray, first: np.ndarray, second: np.ndarray, third: np.ndarray, fourth: np.ndarray
) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Return the products of a query with four rows, each summed in the same order."""
    a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    for j in range(len(query)):
        value = query[j]
        a += value * first[j]
        b += value * second[j]
        c += value * third[j]
        d += value * fourth[j]
    return a, b, c, d


@kernel
def _write(found: np.ndarray, ids: np.ndarray, distances: np.ndarray) -> None:
    """Write items and distances from sorted keys."""
    for column in range(len(found)):
        ids[column] = row_of(found[column])
        distances[column] = np.float32(1) - descending_value(order_of(found[column]))


@kernel(parallel=True)
def _nearest_of_few(
    units: np.ndarray,
    vectors: np.ndarray,
    inverse_norms: np.ndarray,
    k: int,
    parts: int,
    ids: np.ndarray,
    distances: np.ndarray,
) -> None:
    asked, room = len(units), room_for(k)
    rooms = np.empty((asked, parts, room), np.uint64)
    counts = np.zeros((asked, parts), np.int64)
    for part in prange(parts):
        start, stop = len(vectors) * part // parts, len(vectors) * (part + 1) // parts
        limits = np.full(asked, NO_LIMIT)
        least = np.full(asked, np.float32(-np.inf))
        products = np.empty(ROWS, np.float32)
        for row in range(start, stop, ROWS):
            first = min(row, stop - ROWS)  # the last rows are taken again rather than by code that sums otherwise
            for i in range(asked):
                products[0], products[1], products[2], products[3] = _products(
                    units[i], vectors[first], vectors[first + 1], vectors[first + 2], vectors[first + 3]
                )
                for j in range(row - first, ROWS):
                    value = similarity_of(products[j], inverse_norms[first + j])
                    if value > least[i]:
                        key = sort_key(descending(value), first + j)
                        counts[i, part], nearer = collect(key, rooms[i, part], counts[i, part], limits[i], k)
                        if nearer < limits[i]:
                            limits[i] = nearer
                            least[i] = descending_value(order_of(nearer))
    for i in range(asked):
        keys = np.empty(parts * room, np.uint64)
        total = 0
        for part in range(parts):
            count = counts[i, part]
            keys[total : total + count] = rooms[i, part, :count]
            total += count
        if total > k:
            select(keys[:total], k)
        nearest = keys[:k]
        nearest.sort()  # those of each part alone may be in order, as `smallest` expects
        _write(nearest, ids[i], distances[i])


def nearest_of_few(
    units: np.ndarray,
    vectors: np.ndarray,
    inverse_norms: np.ndarray,
    k: int,
    ids: np.ndarray,
    distances: np.ndarray,
) -> None:
    """Write the ``k`` most similar items of a few queries in order, ties by the smaller row.

    Args:
        units: float32 ``(q, d)`` of length 1.
        vectors: float32 ``(n, d)``, at least ``ROWS`` rows; each thread reads a part of them.
        inverse_norms: float32 ``(n,)``.
        k: at most ``n``.
        ids, distances: ``(q, k)`` or wider, filled.
    """
    # Not asked for in compiled code, as numba keeps none that does.
    parts = min(get_num_threads(), len(vectors) // ROWS)
    _nearest_of_few(units, vectors, inverse_norms, k, parts, ids[:, :k], distances[:, :k])


@kernel(parallel=True)
def collect_tile(
    similarities: np.ndarray,
    inverse_norms: np.ndarray,
    first: int,
    seen: int,
    k: int,
    rooms: np.ndarray,
    counts: np.ndarray,
    limits: np.ndarray,
) -> None:
    """Add a tile's items, from row ``first`` on, to each query's collection of its ``k`` most similar items.

    Args:
        seen: row before which items have been added already.
        rooms, counts, limits: a collection (:mod:`lshbench.kernels.topk`) for each query.
    """
    size = min(similarities.shape[1], len(inverse_norms) - first)
    for i in prange(len(counts)):
        room, count, limit = rooms[i], counts[i], limits[i]
        # Rows ascend and ties go to the smaller one: only an item more similar than the k-th is added.
        least = np.float32(-np.inf) if limit == NO_LIMIT else descending_value(order_of(limit))
        for start in range(seen - first, size, BLOCK):
            # Slices, whose indices are known not to be negative: only then are these loops vectorised.
            products = similarities[i, start : min(start + BLOCK, size)]
            norms = inverse_norms[first + start : first + start + len(products)]
            greater = np.uint32(0)
            for j in range(len(products)):
                greater += np.uint32(similarity_of(products[j], norms[j]) > least)
            if greater == 0:
                continue
            for j in range(len(products)):
                value = similarity_of(products[j], norms[j])
                if value > least:
                    key = sort_key(descending(value), first + start + j)
                    count, nearer = collect(key, room, count, limit, k)
                    if nearer < limit:
                        limit = nearer
                        least = descending_value(order_of(limit))
        counts[i], limits[i] = count, limit


@kernel(parallel=True)
def write_nearest(rooms: np.ndarray, counts: np.ndarray, k: int, ids: np.ndarray, distances: np.ndarray) -> None:
    """Write each query's ``k`` most similar items in order; collections hold at least as many."""
    for i in prange(len(counts)):
        _write(smallest(rooms[i], counts[i], k), ids[i], distances[i])
