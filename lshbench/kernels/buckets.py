"""Compiled loops of :mod:`lshbench.index.buckets`: the nearest candidates taken, queries in batches.

Tables and seen are those of :mod:`lshbench.kernels.probes`, distances those of
:mod:`lshbench.kernels.rescoring`.  Throughout:

- queries, a tuple: codes uint8 ``(q, bytes)``, projections float32 ``(q, bits)`` or ``(q, 0)``, vectors float32
  ``(q, d)`` or ``(q, 0)``;
- order int64 ``(q,)``, in which a batch is gone through: neighbours in it may share what the cache holds;
- gallery, a tuple: vectors float32 ``(n, d)`` and inverse norms float32 ``(n,)``, codes as words uint64 ``(n, w)`` and
  as bytes uint8 ``(n, 8 w)``; the words once more, ``(w, n)`` in the order of the first table where it may
  be the only one in use, as its buckets are then runs of memory; what the kind of rescoring does not read is empty;
- shortlist: how many candidates, nearest by Hamming distance, are rescored by cosine; 0 for all.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from lshbench.kernels.compilation import kernel
from lshbench.kernels.frames import Frame, held_row, held_rows
from lshbench.kernels.keys import ascending, ascending_value, order_of, row_of, sort_key
from lshbench.kernels.probes import ONE, gather
from lshbench.kernels.rescoring import (
    AHEAD,
    COSINE,
    EMBEDDING,
    HAMMING,
    ask_for,
    candidate_distance,
    distances_of,
    prepare,
)
from lshbench.kernels.topk import NO_LIMIT, collect, room_for, select, smallest
from lshbench.kernels.words import lowest_bit, popcount

CHUNK = 16
"""Queries that a thread takes at a time, which share its scratch memory."""

ALL = np.iinfo(np.int64).max
"""No limit to what one thread rescores."""

BLOCK = 64
"""Codes whose distances are taken before any is looked at: a bit each in a word."""

ALL_NEAR = np.uint64(0xFFFFFFFFFFFFFFFF)
"""The mask of a block of codes which are all near."""


@kernel
def _write_nearest(room: np.ndarray, count: int, ids: np.ndarray, nearest: np.ndarray) -> None:
    """Write a collection's nearest candidates in order, and -1 and infinity behind the last."""
    found = smallest(room, count, len(ids))
    count = len(found)
    for column in range(count):
        ids[column] = row_of(found[column])
        nearest[column] = ascending_value(order_of(found[column]))
    ids[count:] = -1
    nearest[count:] = np.inf


@kernel
def _collect_nearest(query: np.ndarray, items: np.ndarray | tuple, rows: np.ndarray, k: int, room: np.ndarray) -> int:
    """Collect the keys of the ``k`` nearest candidates, and of some that are not; return how many.

    Args:
        query, items: of one kind of rescoring (:func:`lshbench.kernels.rescoring.candidate_distance`).
        room: uint64, at least ``2 k``; candidates nearer than the k-th so far are collected there.
    """
    count, limit = 0, NO_LIMIT
    for j in range(len(rows)):
        if j + AHEAD < len(rows):
            ask_for(items, np.uint64(rows[j + AHEAD]))
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
    """Do what :func:`_nearest` does where distances are known, float32, one for each row."""
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
    """Keep of a union the candidates nearest by Hamming distance, ties by the smaller row; return how many.

    Args:
        query: uint64 ``(w,)``.
        codes: uint64 ``(n, w)``.
        found: int32, the union's rows in its first ``count`` places.
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
    """Fill ``distances`` uint64 with those of some codes; return a mask of the codes at most ``farthest`` away.

    Without a branch in them, and for a constant size, these loops take several codes at a time.
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
    """Do what :func:`_nearest` does by Hamming distance in ranges of codes in a table's order; return their number.

    Args:
        ranges: int32, where each starts and stops.
        ordered: uint64 ``(w, n)``.
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


@kernel
def search_one(
    kind: int,
    queries: tuple,
    i: int,
    probes: int,
    shortlist: int,
    tables: tuple,
    gallery: tuple,
    scratch: tuple,
    most: int,
    nearest_ids: np.ndarray,
    nearest: np.ndarray,
    candidates: np.ndarray,
) -> int:
    """Search one query.

    Args:
        scratch: as :func:`make_scratch` returns it.
        most: multiplications that rescoring may take here; where there are more, only units and found are filled, and
            the rest, of what is on the shortlist, is left to more threads.
        nearest_ids: int64 ``(q, k)``, filled as by :func:`nearest_of_known`.
        nearest: float32 ``(q, k)``, likewise.
        candidates: int64 ``(q,)``, filled with the sizes of the unions.

    Returns:
        0 if all is done, 1 if rescoring is left, -1 if the query is not finite.
    """
    codes, projections, _ = queries
    seen, found, _, room, units, words, sums = scratch
    if not prepare(kind, shortlist, queries, i, units, words, sums):
        return -1
    ordered = gallery[4]
    ranges = ordered.shape[1] > 0 and tables[1] == 1
    count = gather(codes[i], projections[i], probes, tables, seen, found, ranges)
    if ranges:
        table = tables[7][0]
        candidates[i] = _nearest_in_ranges(words, found[:count], ordered, table, room, nearest_ids[i], nearest[i])
        return 0
    candidates[i] = count
    if shortlist:
        count = _shorten(words, gallery[2], count, shortlist, found, room)
    if count * len(units) > most:
        return 1
    rows = found[:count]
    if kind == COSINE:
        _nearest(units, (gallery[0], gallery[1]), rows, room, nearest_ids[i], nearest[i])
    elif kind == HAMMING:
        _nearest(words, gallery[2], rows, room, nearest_ids[i], nearest[i])
    else:
        _nearest(sums, gallery[3], rows, room, nearest_ids[i], nearest[i])
    return 0


LAYOUT: tuple[tuple[int, type], ...] = (
    *((2, np.int32), (1, np.int32), (1, np.uint64), (1, np.int64), (2, np.int32)),  # columns to directory
    *((2, np.int32), (1, np.uint64), (1, np.int32)),  # ids, flips, owners
    *((2, np.float32), (1, np.float32), (2, np.uint64), (2, np.uint8), (2, np.uint64)),  # gallery
    *((1, np.uint64), (1, np.int32), (1, np.float32), (1, np.uint64)),  # seen, found, distances, room
    *((1, np.float32), (1, np.uint64), (2, np.float32)),  # units, words, sums
)
"""Of the arrays in the frame of :func:`search_held`."""


def frame_of_search(tables: tuple, gallery: tuple, scratch: tuple) -> Frame:
    """Return what :func:`search_held` takes in place of these."""
    columns, _, _, *others = tables
    return Frame.of([columns, *others, *gallery, *scratch], LAYOUT)


@kernel
def search_held(
    frame: np.ndarray,
    kind: int,
    used: int,
    shift: int,
    probes: int,
    shortlist: int,
    most: int,
    codes: np.ndarray,
    projections: np.ndarray,
    vectors: np.ndarray,
    nearest_ids: np.ndarray,
    nearest: np.ndarray,
    candidates: np.ndarray,
) -> int:
    """Do what :func:`search_one` does for the first query, with the arrays of a frame (:data:`LAYOUT`)."""
    tables = (
        held_rows(frame, 0, np.int32),
        used,
        shift,
        held_row(frame, 1, np.int32),
        held_row(frame, 2, np.uint64),
        held_row(frame, 3, np.int64),
        held_rows(frame, 4, np.int32),
        held_rows(frame, 5, np.int32),
        held_row(frame, 6, np.uint64),
        held_row(frame, 7, np.int32),
    )
    gallery = (
        held_rows(frame, 8, np.float32),
        held_row(frame, 9, np.float32),
        held_rows(frame, 10, np.uint64),
        held_rows(frame, 11, np.uint8),
        held_rows(frame, 12, np.uint64),
    )
    scratch = (
        held_row(frame, 13, np.uint64),
        held_row(frame, 14, np.int32),
        held_row(frame, 15, np.float32),
        held_row(frame, 16, np.uint64),
        held_row(frame, 17, np.float32),
        held_row(frame, 18, np.uint64),
        held_rows(frame, 19, np.float32),
    )
    queries = (codes, projections, vectors)
    return search_one(
        kind, queries, 0, probes, shortlist, tables, gallery, scratch, most, nearest_ids, nearest, candidates
    )


@kernel
def make_scratch(kind: int, items: int, k: int, dimensions: int, width: int) -> tuple:
    """Return the memory that a thread works in; pages of it that are never written cost nothing.

    Returns:
        Seen; found int32 ``(2 n + 2,)``; distances float32 ``(n,)``; room uint64; units, words and sums as
        `prepare` fills them.
    """
    return (
        np.zeros((items + 63) // 64, np.uint64),
        np.empty(2 * items + 2, np.int32),
        np.empty(items, np.float32),
        np.empty(room_for(k), np.uint64),
        np.empty(dimensions if kind == COSINE else 0, np.float32),
        np.zeros((width + 7) // 8, np.uint64),
        np.empty((width if kind == EMBEDDING else 0, 256), np.float32),
    )


@kernel(parallel=True)
def search(
    kind: int,
    queries: tuple,
    order: np.ndarray,
    probes: int,
    shortlist: int,
    tables: tuple,
    gallery: tuple,
    nearest_ids: np.ndarray,
    nearest: np.ndarray,
    candidates: np.ndarray,
) -> int:
    """Do what :func:`search_one` does for all queries, with all threads; return one that is not finite, or -1."""
    number, items = len(candidates), tables[7].shape[1]
    chunks = (number + CHUNK - 1) // CHUNK
    wrong = np.full(chunks, -1, np.int64)
    for chunk in prange(chunks):
        scratch = make_scratch(kind, items, max(nearest.shape[1], shortlist), queries[2].shape[1], queries[0].shape[1])
        for i in order[chunk * CHUNK : (chunk + 1) * CHUNK]:
            state = search_one(
                kind, queries, i, probes, shortlist, tables, gallery, scratch, ALL, nearest_ids, nearest, candidates
            )
            if state < 0:
                wrong[chunk] = i
    return wrong.max() if chunks else -1


@kernel(parallel=True)
def count_candidates(
    queries: tuple, order: np.ndarray, probes: int, shortlist: int, tables: tuple, counts: np.ndarray
) -> None:
    """Fill ``counts`` int64 ``(q,)`` with the sizes of the queries' unions, or of what is kept of these."""
    codes, projections, _ = queries
    items = tables[7].shape[1]
    for chunk in prange((len(counts) + CHUNK - 1) // CHUNK):
        seen = np.zeros((items + 63) // 64, np.uint64)
        found = np.empty(2 * items + 2, np.int32)
        for i in order[chunk * CHUNK : (chunk + 1) * CHUNK]:
            count = gather(codes[i], projections[i], probes, tables, seen, found)
            counts[i] = min(count, shortlist) if shortlist else count


@kernel(parallel=True)
def fill_candidates(
    kind: int,
    queries: tuple,
    order: np.ndarray,
    probes: int,
    shortlist: int,
    tables: tuple,
    gallery: tuple,
    offsets: np.ndarray,
    rows: np.ndarray,
    distances: np.ndarray,
) -> int:
    """Fill rows and distances of all candidates, or of those on the shortlist, a query's from its offset to the next.

    Returns:
        A query that is not finite, or -1.
    """
    codes, projections, vectors = queries
    number, items = len(codes), tables[7].shape[1]
    chunks = (number + CHUNK - 1) // CHUNK
    wrong = np.full(chunks, -1, np.int64)
    for chunk in prange(chunks):
        seen, found, _, room, units, words, sums = make_scratch(
            kind, items, max(1, shortlist), vectors.shape[1], codes.shape[1]
        )
        for i in order[chunk * CHUNK : (chunk + 1) * CHUNK]:
            if not prepare(kind, shortlist, queries, i, units, words, sums):
                wrong[chunk] = i
                continue
            own = rows[offsets[i] : offsets[i + 1]]
            count = gather(codes[i], projections[i], probes, tables, seen, found)
            if shortlist:
                count = _shorten(words, gallery[2], count, shortlist, found, room)
            own[:] = found[:count]
            distances_of(kind, units, words, sums, own, gallery, distances[offsets[i] : offsets[i + 1]])
    return wrong.max() if chunks else -1
