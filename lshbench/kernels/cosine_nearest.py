"""Kernels of :mod:`lshbench.ranking.cosine`: the k most similar gallery items of each query.

Of many queries the similarities come from matrix products, or, among narrow vectors, from products that are made here
and looked at while they are in the cache.  A few queries are compared with the gallery in one pass over it: a product
of few rows reads and rearranges the whole gallery for little work.  In any case similarities are looked at by 32 at a
time, and one by one only where they exceed a value that k items are known to reach.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, prange

from lshbench.kernels.compilation import copy, kernel
from lshbench.kernels.cosine import similarity_of
from lshbench.kernels.keys import descending, descending_value, order_of, row_of, sort_key
from lshbench.kernels.lanes import LANES, WINDOWS, greater_of_32, greatest_of_32, write_greatest_of_windows
from lshbench.kernels.products import FOUR, NARROW, SIX, write_narrow_products, write_similarities
from lshbench.kernels.rescoring import scale_to_unit
from lshbench.kernels.threads import own_part, threaded_kernel
from lshbench.kernels.topk import IN_ORDER, NO_LIMIT, collect, joined, room_for, select, sort_by_buckets
from lshbench.kernels.words import lowest_bit

TOGETHER = 1 << 14
"""Numbers of the gallery rows that are compared with one query after the other while they are in the cache."""

CHUNK = 1 << 14
"""Similarities that are kept before any of them is looked at."""

SERIAL = 1 << 20
"""Multiplications up to which one thread has found the nearest items before others would have woken."""

NEAR = 1 << 17
"""Similarities that are looked at while they are in the cache."""

HALVINGS = 10
"""Steps, at most, in which a value is found that k windows' greatest similarities reach."""

SLACK = 16
"""A value that at most k + k / 16 windows reach is sharp enough."""


@kernel(fastmath={"reassoc", "contract", "nsz"})  # a sum's order is free, so that it can be vectorised
def _fill_products(query: np.ndarray, rows: np.ndarray, products: np.ndarray) -> None:
    """Fill ``products`` with those of a query and each row, one row after the other, as memory is read fastest."""
    for i in range(len(rows)):
        row = rows[i]
        product = np.float32(0)
        for j in range(len(query)):
            product += query[j] * row[j]
        products[i] = product


@kernel  # in the order of its own additions, which may not be changed
def _fill_narrow_products(query: np.ndarray, rows: np.ndarray, products: np.ndarray) -> None:
    """Fill ``products`` with those of a query, contiguous, and each row, all of 64 numbers."""
    if len(rows) < FOUR:
        padded, found = np.zeros((FOUR, NARROW), np.float32), np.empty(FOUR, np.float32)
        for i in range(len(rows)):
            copy(rows[i], padded[i])
        write_narrow_products(query, padded, 0, found)
        copy(found, products)
        return
    for i in range(0, len(rows), FOUR):
        # The last four are taken again: another way to add them up would part equal rows.
        write_narrow_products(query, rows, min(i, len(rows) - FOUR), products)


@kernel
def _similarity_at(products: np.ndarray, inverse_norms: np.ndarray | None, j: int) -> np.float32:
    """Return an item's similarity; without norms, products are similarities already."""
    if inverse_norms is None:
        return similarity_of(products[j], np.float32(1))
    return similarity_of(products[j], inverse_norms[j])


@kernel
def _reached(greatest: np.ndarray, k: int) -> np.float32:
    """Return a value that at least ``k`` of as many numbers or more reach, near the ``k``-th greatest."""
    low, high = greatest[0], greatest[0]
    for j in range(len(greatest)):  # loops over an array's values aren't vectorised
        low = greatest[j] if greatest[j] < low else low
        high = greatest[j] if greatest[j] > high else high
    for _ in range(HALVINGS):
        middle = low + np.float32(0.5) * (high - low)
        count = np.int32(0)
        for j in range(len(greatest)):
            count += np.int32(greatest[j] >= middle)
        if count >= k:
            low = middle
            if count <= k + k // SLACK:
                break
        else:
            high = middle
    return low if low != 0 else np.float32(-0.0)  # with which 0 ties


@kernel
def _collect_greatest(
    products: np.ndarray, inverse_norms: np.ndarray | None, first: int, k: int, room: np.ndarray
) -> tuple[int, int, np.uint64]:
    """Start a collection of the ``k`` most similar of items in at least ``k`` whole windows.

    Returns:
        The item up to which all have been looked at, of which the room may hold no more, and the collection's count and
        limit.
    """
    windows = len(products) // LANES
    greatest = np.empty(windows, np.float32)
    together = windows // WINDOWS * WINDOWS
    for window in range(0, together, WINDOWS):
        write_greatest_of_windows(products, inverse_norms, LANES * window, greatest, window)
    for window in range(together, windows):
        greatest[window] = greatest_of_32(products, inverse_norms, LANES * window)
    # As many items reach a value as windows whose greatest similarity does, at least.
    limit = sort_key(descending(_reached(greatest, k)) + np.uint64(1), 0)
    least = descending_value(order_of(limit))
    if k <= IN_ORDER:  # collections as small are kept sorted
        return 0, 0, limit
    # Every third window or so has an item: listed first, without a branch, which would be mispredicted as often.
    near = np.empty(windows, np.int32)
    number = 0
    for window in range(windows):
        near[number] = window
        number += int(greatest[window] > least)
    count = 0
    for i in range(number):
        start = LANES * int(near[i])
        if count + LANES >= len(room):
            return start, count, limit
        mask = greater_of_32(products, inverse_norms, start, least)
        while mask:
            j = start + lowest_bit(mask)
            mask &= mask - np.uint64(1)
            room[count] = sort_key(descending(_similarity_at(products, inverse_norms, j)), first + j)
            count += 1
    return LANES * windows, count, limit


@kernel
def _collect_similar(
    products: np.ndarray,
    inverse_norms: np.ndarray | None,
    first: int,
    k: int,
    room: np.ndarray,
    count: int,
    limit: np.uint64,
) -> tuple[int, np.uint64]:
    """Add items, from row ``first`` on, to a collection of the ``k`` most similar; return its new count and limit.

    Args:
        products: float32 ``(n,)``.
        inverse_norms: float32 ``(n,)``, of the same items; None where ``products`` are their similarities.
        room, count, limit: the collection (:mod:`lshbench.kernels.topk`); no row in it is larger than ``first``.
    """
    windows = len(products) // LANES
    looked_at = 0
    if count == 0 and limit == NO_LIMIT and windows >= k:
        looked_at, count, limit = _collect_greatest(products, inverse_norms, first, k, room)
    # Rows ascend and ties go to the smaller one: only an item more similar than the k-th is added.
    least = np.float32(-np.inf) if limit == NO_LIMIT else descending_value(order_of(limit))
    for window in range(looked_at // LANES, (len(products) + LANES - 1) // LANES):
        start = LANES * window
        if window < windows:
            mask = greater_of_32(products, inverse_norms, start, least)
        else:
            mask = (np.uint64(1) << np.uint64(len(products) - start)) - np.uint64(1)
        while mask:
            j = start + lowest_bit(mask)
            mask &= mask - np.uint64(1)
            value = _similarity_at(products, inverse_norms, j)
            if value > least:
                key = sort_key(descending(value), first + j)
                if k > IN_ORDER and count + 1 < len(room):  # most often, and then not worth a call
                    room[count] = key
                    count += 1
                    continue
                count, nearer = collect(key, room, count, limit, k)
                if nearer < limit:
                    limit = nearer
                    least = descending_value(order_of(limit))
    return count, limit


@kernel
def _write_sorted(keys: np.ndarray, k: int, ids: np.ndarray, distances: np.ndarray) -> None:
    """Write the items and distances of the ``k`` smallest of at least as many keys, in order."""
    if len(keys) > 2 * k:
        select(keys, k)
        keys = keys[:k]
    sort_by_buckets(keys)
    for column in range(k):
        ids[column] = row_of(keys[column])
        distances[column] = np.float32(1) - descending_value(order_of(keys[column]))


@kernel
def unit_queries(queries: np.ndarray, units: np.ndarray) -> bool:
    """Fill the first of ``units`` with queries at length 1; return whether all are finite."""
    finite = True
    for i in range(len(queries)):
        finite &= scale_to_unit(queries[i], units[i])
    return finite


@kernel
def _collect_part(
    units: np.ndarray,
    vectors: np.ndarray,
    inverse_norms: np.ndarray,
    start: int,
    stop: int,
    k: int,
    rooms: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Collect each query's ``k`` most similar items of rows ``start`` to ``stop``."""
    asked = len(units)
    limits = np.full(asked, NO_LIMIT)
    chunk, together = CHUNK // asked, TOGETHER // max(1, vectors.shape[1]) + 1
    products = np.empty((asked, chunk), np.float32)
    narrow = vectors.shape[1] == NARROW and vectors.strides[1] == vectors.itemsize
    if narrow:
        together = together // FOUR * FOUR
    for first in range(start, stop, chunk):
        last = min(first + chunk, stop)
        for row in range(first, last, together):
            behind = min(row + together, last)
            for i in range(asked):
                found = products[i, row - first : behind - first]
                if narrow:
                    _fill_narrow_products(units[i], vectors[row:behind], found)
                else:
                    _fill_products(units[i], vectors[row:behind], found)
        for i in range(asked):
            counts[i], limits[i] = _collect_similar(
                products[i, : last - first], inverse_norms[first:last], first, k, rooms[i], counts[i], limits[i]
            )


@kernel
def _write_few(rooms: np.ndarray, counts: np.ndarray, k: int, ids: np.ndarray, distances: np.ndarray) -> None:
    """Write each query's ``k`` most similar items of all parts; ``rooms`` are ``(parts, q, room)``."""
    for i in range(rooms.shape[1]):
        _write_sorted(joined(rooms, counts, i), k, ids[i], distances[i])


@kernel
def _few_serial(
    queries: np.ndarray, vectors: np.ndarray, inverse_norms: np.ndarray, k: int, ids: np.ndarray, distances: np.ndarray
) -> bool:
    units = np.empty(queries.shape, np.float32)
    if not unit_queries(queries, units):
        return False
    rooms = np.empty((1, len(units), room_for(k)), np.uint64)
    counts = np.zeros((1, len(units)), np.int64)
    _collect_part(units, vectors, inverse_norms, 0, len(vectors), k, rooms[0], counts[0])
    _write_few(rooms, counts, k, ids, distances)
    return True


@kernel(parallel=True)
def _few_parallel(
    queries: np.ndarray,
    vectors: np.ndarray,
    inverse_norms: np.ndarray,
    k: int,
    parts: int,
    ids: np.ndarray,
    distances: np.ndarray,
) -> bool:
    units = np.empty(queries.shape, np.float32)
    if not unit_queries(queries, units):
        return False
    rooms = np.empty((parts, len(units), room_for(k)), np.uint64)
    counts = np.zeros((parts, len(units)), np.int64)
    for part in prange(parts):
        start, stop = len(vectors) * part // parts, len(vectors) * (part + 1) // parts
        _collect_part(units, vectors, inverse_norms, start, stop, k, rooms[part], counts[part])
    _write_few(rooms, counts, k, ids, distances)
    return True


def nearest_of_few(
    queries: np.ndarray,
    vectors: np.ndarray,
    inverse_norms: np.ndarray,
    k: int,
    ids: np.ndarray,
    distances: np.ndarray,
) -> bool:
    """Write the ``k`` most similar items of a few queries in order, ties by the smaller row; or return False.

    Args:
        queries: float32 ``(q, d)``; where one isn't finite, nothing is written.
        vectors: float32 ``(n, d)``; each thread reads a part of them.
        inverse_norms: float32 ``(n,)``.
        k: at most ``n``.
        ids, distances: ``(q, k)`` or wider, filled.
    """
    # Not asked for in compiled code, as numba keeps none that does.
    parts = 1 if len(queries) * vectors.size <= SERIAL else min(get_num_threads(), len(vectors))
    if parts == 1:
        return bool(_few_serial(queries, vectors, inverse_norms, k, ids, distances))
    return bool(_few_parallel(queries, vectors, inverse_norms, k, parts, ids, distances))


@threaded_kernel
def collect_tile(
    part: int,
    parts: int,
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
    stop = min(first + similarities.shape[1], len(inverse_norms))
    for i in own_part(len(counts), part, parts):
        counts[i], limits[i] = _collect_similar(
            similarities[i, seen - first : stop - first],
            inverse_norms[seen:stop],
            seen,
            k,
            rooms[i],
            counts[i],
            limits[i],
        )


@threaded_kernel
def write_nearest(
    part: int, parts: int, rooms: np.ndarray, counts: np.ndarray, k: int, ids: np.ndarray, distances: np.ndarray
) -> None:
    """Write each query's ``k`` most similar items in order; collections hold at least as many."""
    for i in own_part(len(counts), part, parts):
        _write_sorted(rooms[i, : counts[i]], k, ids[i], distances[i])


@kernel
def _multiply_part(
    units: np.ndarray,
    start: int,
    stop: int,
    panels: np.ndarray,
    items: int,
    first: int,
    k: int,
    rooms: np.ndarray,
    counts: np.ndarray,
    limits: np.ndarray,
    ids: np.ndarray,
    distances: np.ndarray,
) -> None:
    """Do what :func:`search_panels` does for queries ``start`` to ``stop``, a multiple of six."""
    tile = panels.shape[0] * panels.shape[2]
    held = min(tile, items - first)
    step = max(1, NEAR // (SIX * tile)) * SIX
    similarities = np.empty((min(step, stop - start), tile), np.float32)
    for query in range(start, stop, step):
        behind = min(query + step, stop)
        for panel in range(len(panels)):
            for row in range(query, behind, SIX):
                write_similarities(units, row, panels, panel, similarities, row - query)
        for i in range(query, min(behind, len(counts))):
            counts[i], limits[i] = _collect_similar(
                similarities[i - query, :held], None, first, k, rooms[i], counts[i], limits[i]
            )
            if first + held == items:
                _write_sorted(rooms[i, : counts[i]], k, ids[i], distances[i])


@kernel(parallel=True)
def search_panels(
    units: np.ndarray,
    parts: int,
    panels: np.ndarray,
    items: int,
    first: int,
    k: int,
    rooms: np.ndarray,
    counts: np.ndarray,
    limits: np.ndarray,
    ids: np.ndarray,
    distances: np.ndarray,
) -> None:
    """Multiply queries with a tile of narrow rows and add its items, from row ``first`` on, to each query's collection.

    A few queries' similarities at a time are looked at while they are in the cache: written by a matrix product and
    read again, they would cost as much as the product.

    Args:
        units: float32 ``(6 m, d)``, queries at length 1, and zeros beyond the last.
        parts: of the queries, each multiplied by one thread.
        panels: float32 ``(p, d + 1, 16)``, the tile (:func:`lshbench.kernels.products.pack`).
        items: rows of the gallery, behind which panels may be longer.
        k: at most ``items``.
        rooms, counts, limits: a collection (:mod:`lshbench.kernels.topk`) for each query.
        ids, distances: ``(q, k)`` or wider; written, in order, with the last tile.
    """
    groups = len(units) // SIX
    for part in prange(parts):
        start, stop = groups * part // parts * SIX, groups * (part + 1) // parts * SIX
        _multiply_part(units, start, stop, panels, items, first, k, rooms, counts, limits, ids, distances)
