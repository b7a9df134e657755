"""Kernels of :mod:`lshbench.index.buckets`: the nearest candidates of a batch of queries, or of a single one.

Throughout, ``order`` int64 ``(q,)`` is the order in which the queries of a batch are processed: consecutive ones may
share candidates that are still in the cache.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lshbench.kernels.compilation import copy, kernel
from lshbench.kernels.frames import read_frame
from lshbench.kernels.keys import ascending, ascending_value, order_of, row_of, sort_key
from lshbench.kernels.probes import ONE, Tables, gather
from lshbench.kernels.rescoring import (
    AHEAD,
    COSINE,
    EMBEDDING,
    HAMMING,
    Gallery,
    Queries,
    Scratch,
    candidate_distance,
    distances_of,
    make_scratch,
    prefetch_item,
    prepare,
)
from lshbench.kernels.threads import own_part, threaded_kernel
from lshbench.kernels.topk import NO_LIMIT, collect, select, smallest
from lshbench.kernels.words import lowest_bit, popcount

ALL = np.iinfo(np.int64).max
"""No limit to what one thread rescores."""

BLOCK = 64
"""Codes whose distances are computed before any is inspected: one bit of a mask each."""

ALL_NEAR = np.uint64(0xFFFFFFFFFFFFFFFF)
"""The mask of a block whose codes are all near."""


@kernel
def _write_nearest(room: np.ndarray, count: int, ids: np.ndarray, nearest: np.ndarray) -> None:
    """Write a collection's nearest candidates in order, then -1 and infinity."""
    found = smallest(room, count, len(ids))
    count = len(found)
    for column in range(count):
        ids[column] = row_of(found[column])
        nearest[column] = ascending_value(order_of(found[column]))
    ids[count:] = -1
    nearest[count:] = np.inf


@kernel
def _collect_nearest(query: np.ndarray, items: np.ndarray | tuple, rows: np.ndarray, k: int, room: np.ndarray) -> int:
    """Collect sort keys of candidates, the ``k`` nearest among them; return how many keys.

    Args:
        query, items: of one kind of rescoring (:func:`lshbench.kernels.rescoring.candidate_distance`).
        room: uint64, at least ``2 k``, the buffer of the collection.
    """
    count, limit = 0, NO_LIMIT
    for j in range(len(rows)):
        if j + AHEAD < len(rows):
            prefetch_item(items, np.uint64(rows[j + AHEAD]))
        row = np.uint64(rows[j])
        key = sort_key(ascending(candidate_distance(query, items, row)), row)
        if key < limit:
            count, limit = collect(key, room, count, limit, k)
    return count


@kernel
def _nearest(
    query: np.ndarray,
    items: np.ndarray | tuple,
    rows: np.ndarray,
    room: np.ndarray,
    ids: np.ndarray,
    nearest: np.ndarray,
) -> None:
    """Fill a query's results with its nearest candidates, ties by the smaller row.

    Args:
        query, items, room: as :func:`_collect_nearest` takes them.
        ids: int64 ``(k,)``; -1 where there are fewer.
        nearest: float32 ``(k,)``; infinity where there are fewer.
    """
    _write_nearest(room, _collect_nearest(query, items, rows, len(ids), room), ids, nearest)


@kernel
def nearest_of_known(
    rows: np.ndarray, distances: np.ndarray, room: np.ndarray, ids: np.ndarray, nearest: np.ndarray
) -> None:
    """Fill a query's results like :func:`_nearest`, from known distances, float32, one for each row."""
    k = len(ids)
    count, limit = 0, NO_LIMIT
    for j in range(len(rows)):
        key = sort_key(ascending(distances[j]), rows[j])
        if key < limit:
            count, limit = collect(key, room, count, limit, k)
    _write_nearest(room, count, ids, nearest)


@kernel
def _shorten(
    query: np.ndarray, codes: np.ndarray, count: int, shortlist: int, found: np.ndarray, room: np.ndarray
) -> int:
    """Keep the shortlist: the candidates nearest by Hamming distance, ties by the smaller row; return how many.

    Args:
        query: uint64 ``(w,)``.
        codes: uint64 ``(n, w)``.
        found: int32, the candidates' rows in its first ``count`` places.
        room: uint64, at least twice the shortlist.
    """
    if count <= shortlist:
        return count
    kept = _collect_nearest(query, codes, found[:count], shortlist, room)
    select(room[:kept], shortlist)
    for j in range(shortlist):
        found[j] = np.int32(row_of(room[j]))
    return shortlist


@kernel(inline="always")
def _near(
    query: np.ndarray, ordered: np.ndarray, start: np.uint64, size: int, farthest: np.uint64, distances: np.ndarray
) -> np.uint64:
    """Fill ``distances`` uint64 with those of ``size`` codes; return a mask of the codes at most ``farthest`` away.

    Without branches, and for a constant size, the compiler vectorises these loops.
    """
    asked, plane = query[0], ordered[0]
    for j in range(size):
        distances[j] = popcount(asked ^ plane[start + np.uint64(j)])
    for word in range(1, len(query)):
        asked, plane = query[word], ordered[word]
        for j in range(size):
            distances[j] += popcount(asked ^ plane[start + np.uint64(j)])
    near = np.uint64(0)
    for j in range(size):
        near |= np.uint64(distances[j] <= farthest) << np.uint64(j)
    return near


@kernel
def _nearest_in_ranges(
    query: np.ndarray,
    ranges: np.ndarray,
    ordered: np.ndarray,
    table: np.ndarray,
    room: np.ndarray,
    ids: np.ndarray,
    nearest: np.ndarray,
) -> int:
    """Fill a query's results with the nearest codes of some ranges of a table; return how many were compared.

    Args:
        ranges: int32, where each starts and stops.
        ordered: uint64 ``(w, n)``, the codes in the table's order.
        table: int32 ``(n,)``, the rows that those codes belong to.
    """
    k = len(ids)
    count, limit, farthest = 0, NO_LIMIT, NO_LIMIT
    compared = np.uint64(0)
    distances = np.empty(BLOCK, np.uint64)
    step, items = np.uint64(BLOCK), np.uint64(len(table))
    for place in range(0, len(ranges), 2):
        start, stop = np.uint64(ranges[place]), np.uint64(ranges[place + 1])
        compared += stop - start
        while start < stop:
            size = min(step, stop - start)
            if start + step <= items:
                near = _near(query, ordered, start, BLOCK, farthest, distances)
                near &= ALL_NEAR >> (step - size)
            else:
                near = _near(query, ordered, start, np.int64(size), farthest, distances)
            while near:
                j = np.uint64(lowest_bit(near))
                near &= near - ONE
                key = sort_key(ascending(np.float32(distances[j])), table[start + j])
                if key < limit:
                    count, nearer = collect(key, room, count, limit, k)
                    if nearer < limit:
                        limit = nearer
                        farthest = np.uint64(ascending_value(order_of(limit)))
            start += step
    _write_nearest(room, count, ids, nearest)
    return int(np.int64(compared))


class SearchedIndex(NamedTuple):
    """An index at one of its query settings, as kernels read it."""

    tables: Tables
    gallery: Gallery
    kind: int  # of rescoring: COSINE, HAMMING, EMBEDDING or ASYMMETRIC
    probes: int  # buckets probed, as a multiple of the tables in use
    shortlist: int  # how many candidates, nearest by Hamming distance, are rescored by cosine; 0 for all


class SingleSearch(NamedTuple):
    """An index, and the scratch memory with which single queries are searched."""

    searched: SearchedIndex
    scratch: Scratch


@kernel
def search_one(
    searched: SearchedIndex,
    queries: Queries,
    i: int,
    scratch: Scratch,
    most: int,
    nearest_ids: np.ndarray,
    nearest: np.ndarray,
    candidates: np.ndarray,
) -> int:
    """Search one query.

    Args:
        most: multiplications that rescoring may take on this thread; beyond it only ``unit`` and ``found`` (the
            shortlist, if there is one) are filled, and rescoring is left to the caller, on all threads.
        nearest_ids: int64 ``(q, k)``, gallery rows; -1 where there are fewer.
        nearest: float32 ``(q, k)``, their distances; infinity where there are fewer.
        candidates: int64 ``(q,)``, filled with how many candidates the queries have.

    Returns:
        0 if all is done, 1 if rescoring is left, -1 if the query is not finite.
    """
    tables, gallery, kind, probes, shortlist = searched
    found, room = scratch.found, scratch.room
    if not prepare(kind, shortlist, queries, i, scratch):
        return -1
    ordered = gallery.ordered_words
    ranges = ordered.shape[1] > 0 and tables.used == 1
    count = gather(queries.codes[i], queries.projections[i], probes, tables, scratch.seen, found, ranges)
    if ranges:
        candidates[i] = _nearest_in_ranges(
            scratch.words, found[:count], ordered, tables.ids[0], room, nearest_ids[i], nearest[i]
        )
        return 0
    candidates[i] = count
    if shortlist:
        count = _shorten(scratch.words, gallery.words, count, shortlist, found, room)
    if count * len(scratch.unit) > most:
        return 1
    rows = found[:count]
    if kind == COSINE:
        vectors = (gallery.vectors, gallery.inverse_norms)
        _nearest(scratch.unit, vectors, rows, room, nearest_ids[i], nearest[i])
    elif kind == HAMMING:
        _nearest(scratch.words, gallery.words, rows, room, nearest_ids[i], nearest[i])
    elif kind == EMBEDDING:
        _nearest(scratch.sums, gallery.code_bytes, rows, room, nearest_ids[i], nearest[i])
    else:
        projected = (scratch.sums, scratch.step)
        _nearest(projected, gallery.code_bytes, rows, room, nearest_ids[i], nearest[i])
    return 0


@kernel
def search_single(
    frame: np.ndarray,
    most: int,
    codes: np.ndarray,
    projections: np.ndarray,
    vectors: np.ndarray,
    nearest_ids: np.ndarray,
    nearest: np.ndarray,
    candidates: np.ndarray,
) -> int:
    """Search the first query like :func:`search_one`; ``frame`` has the numbers of a :class:`SingleSearch`."""
    searched, scratch = read_frame(frame, SingleSearch)
    queries = Queries(codes, projections, vectors)
    return search_one(searched, queries, 0, scratch, most, nearest_ids, nearest, candidates)


@threaded_kernel
def search(
    part: int,
    parts: int,
    frame: np.ndarray,
    queries: Queries,
    order: np.ndarray,
    nearest_ids: np.ndarray,
    nearest: np.ndarray,
    candidates: np.ndarray,
) -> int:
    """Search all queries like :func:`search_one`; each part returns one of its queries that is not finite, or -1.

    Args:
        frame: of a :class:`SearchedIndex`.
    """
    searched = read_frame(frame, SearchedIndex)
    items, k = searched.tables.ids.shape[1], max(nearest.shape[1], searched.shortlist)
    scratch = make_scratch(searched.kind, items, k, queries.vectors.shape[1], queries.codes.shape[1])
    wrong = -1
    for place in own_part(len(order), part, parts):
        i = order[place]
        if search_one(searched, queries, i, scratch, ALL, nearest_ids, nearest, candidates) < 0:
            wrong = i
    return wrong


@threaded_kernel
def count_candidates(
    part: int, parts: int, frame: np.ndarray, queries: Queries, order: np.ndarray, counts: np.ndarray
) -> None:
    """Fill ``counts`` int64 ``(q,)`` with each query's number of candidates, after the shortlist if there is one."""
    searched = read_frame(frame, SearchedIndex)
    tables, shortlist = searched.tables, searched.shortlist
    seen = np.zeros((tables.ids.shape[1] + 63) // 64, np.uint64)
    found = np.empty(2 * tables.ids.shape[1] + 2, np.int32)
    for place in own_part(len(order), part, parts):
        i = order[place]
        count = gather(queries.codes[i], queries.projections[i], searched.probes, tables, seen, found, False)
        counts[i] = min(count, shortlist) if shortlist else count


@kernel
def _fill_one(
    searched: SearchedIndex, queries: Queries, i: int, scratch: Scratch, rows: np.ndarray, distances: np.ndarray
) -> bool:
    """Fill rows and distances of one query's candidates; return whether it is finite."""
    tables, gallery, kind, probes, shortlist = searched
    if not prepare(kind, shortlist, queries, i, scratch):
        return False
    found = scratch.found
    count = gather(queries.codes[i], queries.projections[i], probes, tables, scratch.seen, found, False)
    if shortlist:
        count = _shorten(scratch.words, gallery.words, count, shortlist, found, scratch.room)
    copy(found, rows)
    distances_of(kind, scratch, rows, gallery, distances)
    return True


@threaded_kernel
def fill_candidates(
    part: int,
    parts: int,
    frame: np.ndarray,
    queries: Queries,
    order: np.ndarray,
    offsets: np.ndarray,
    rows: np.ndarray,
    distances: np.ndarray,
) -> int:
    """Fill rows and distances of all candidates, or of those on the shortlist, a query's from its offset to the next.

    Returns:
        From each part one of its queries that is not finite, or -1.
    """
    searched = read_frame(frame, SearchedIndex)
    items, k = searched.tables.ids.shape[1], max(1, searched.shortlist)
    scratch = make_scratch(searched.kind, items, k, queries.vectors.shape[1], queries.codes.shape[1])
    wrong = -1
    for place in own_part(len(order), part, parts):
        i = order[place]
        start, stop = offsets[i], offsets[i + 1]
        if not _fill_one(searched, queries, i, scratch, rows[start:stop], distances[start:stop]):
            wrong = i
    return wrong
