"""Kernels of :mod:`lshbench.ranking.cosine`: complete rankings.

Similarities are float32 ``(tiles, q, tile)``: products of unit queries with gallery rows, still to be divided by the
rows' norms.  A gallery row is ``tile number * tile + column``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lshbench.kernels.compilation import copy, kernel
from lshbench.kernels.frames import Float32Vector, Int32Vector, UInt64Vector, borrowed
from lshbench.kernels.keys import descending, descending_value, order_of, radix_sort, row_of, sort_key
from lshbench.kernels.labels import Labels, is_relevant, relevant_rows
from lshbench.kernels.threads import own_part, threaded_kernel

BLOCK = 2048
"""Items that are placed among a query's relevant ones at a time."""

FEWEST_BINS, BINS_AN_ITEM, MOST_BINS = 256, 32, 1 << 16
"""Bins over the similarities of a query's relevant items: enough that few share one, few enough for the cache."""

FULL = 32
"""Relevant items in one bin up to which insertion sort is used; with more, all are radix sorted."""

STEPS = 2
"""Relevant items in one bin up to which others are placed among them without a binary search."""

STRIP = 1 << 10
"""Numbers of a group's field that are moved at a time."""

LEAST_SPAN = np.float32(1e-30)
ZERO, ONE, TWO = np.uint32(0), np.uint32(1), np.uint32(2)


class Scratch(NamedTuple):
    """Scratch memory of one thread, for queries with up to ``r`` relevant items of ``n``."""

    keys: UInt64Vector  # (r,)
    spare: UInt64Vector  # (r,)
    own: Float32Vector  # (r,)
    values: Float32Vector  # (r + 1,)
    table: Int32Vector  # (MOST_BINS + 2,)
    tally: Int32Vector  # (2 r + 2,)
    similarity: Float32Vector  # (n,)
    bins: Int32Vector  # (BLOCK,)
    close: Int32Vector  # (BLOCK + 1,)


@kernel
def _make_scratch(relevant: int, items: int) -> Scratch:
    return Scratch(
        np.empty(relevant, np.uint64),
        np.empty(relevant, np.uint64),
        np.empty(relevant, np.float32),
        np.empty(relevant + 1, np.float32),
        np.empty(MOST_BINS + 2, np.int32),
        np.empty(2 * relevant + 2, np.int32),
        np.empty(items, np.float32),
        np.empty(BLOCK, np.int32),
        np.empty(BLOCK + 1, np.int32),
    )


@threaded_kernel
def squared_norms(part: int, parts: int, vectors: np.ndarray, squares: np.ndarray) -> None:
    """Fill ``squares`` float64 ``(n,)``, where float32 values don't overflow: only NaN and infinity aren't finite."""
    for row in own_part(len(vectors), part, parts):
        total = 0.0
        for value in vectors[row]:
            total += np.float64(value) * np.float64(value)
        squares[row] = total


@kernel(inline="always")
def similarity_of(product: np.float32, inverse_norm: np.float32) -> np.float32:
    """Return the similarity of a unit query to a gallery row, from their product."""
    # -0 has to tie with 0, but would sort after it: adding 0 makes it 0.
    return product * inverse_norm + np.float32(0)


@kernel
def _scale(products: np.ndarray, inverse_norms: np.ndarray, similarity: np.ndarray) -> None:
    """Fill ``similarity`` float32 ``(n,)`` from products ``(tiles, tile)``: contiguous, for the reads that follow."""
    tile = products.shape[1]
    for first in range(0, len(similarity), tile):
        last = min(first + tile, len(similarity))
        own = products[first // tile]
        norms = inverse_norms[first:last]
        target = similarity[first:last]
        for j in range(last - first):
            target[j] = similarity_of(own[j], norms[j])


@kernel(inline="always")
def _bin(value: np.float32, top: np.float32, scale: np.float32, last: np.float32) -> np.int32:
    # Subtraction, product and truncation are monotonic as rounded, so that bins keep the order of similarities.
    place = (top - value) * scale
    return np.int32(min(max(place, np.float32(0)), last))


@kernel
def _sort_relevant(
    similarity: np.ndarray,
    rows: np.ndarray,
    own: np.ndarray,
    keys: np.ndarray,
    spare: np.ndarray,
    values: np.ndarray,
    table: np.ndarray,
) -> tuple[np.ndarray, np.float32, np.float32]:
    """Sort the relevant items by similarity, ties by row, and fill a table over evenly spaced bins.

    Args:
        similarity: float32 ``(n,)``.
        rows: of the ``r`` relevant items, ascending.
        own, keys, spare: scratch memory for them, float32, uint64 and uint64.
        values: float32 ``(r + 1,)``, filled with their similarities, descending, and -inf behind the last.
        table: int32 ``(bins + 2,)``, filled with ``2 f + s`` for each bin: ``f`` relevant items are in bins before it,
            and ``s`` is 1 if it has any itself; an item in a bin that has none ranks right after those ``f``.

    Returns:
        Sorted keys (similarity, row), and the ``top`` and ``scale`` that :func:`_bin` takes.
    """
    for j in range(len(rows)):
        own[j] = similarity[rows[j]]
    top, low = own[0], own[0]
    for value in own:
        top, low = max(top, value), min(low, value)
    last = np.float32(len(table) - 2)
    scale = (last - np.float32(1)) / max(top - low, LEAST_SPAN)
    table[:] = 0
    for value in own:
        table[np.uint32(_bin(value, top, scale, last)) + ONE] += np.int32(2)
    start, most = np.int32(0), np.int32(0)
    for j in range(1, len(table)):
        count = table[j]
        table[j] = start
        start += count
        most = max(most, count)
    # A counting sort: each item advances its bin's start, which ends up where the next bin starts.
    for j in range(len(rows)):
        place = np.uint32(_bin(own[j], top, scale, last)) + ONE
        keys[np.uint32(table[place]) // TWO] = sort_key(descending(own[j]), rows[j])
        table[place] += np.int32(2)
    if most > 2 * FULL:
        keys = radix_sort(keys, spare)
    else:
        for j in range(1, len(keys)):
            key = keys[j]
            slot = j
            while slot > 0 and keys[slot - 1] > key:
                keys[slot] = keys[slot - 1]
                slot -= 1
            keys[slot] = key
    for j in range(len(keys)):
        values[j] = descending_value(order_of(keys[j]))
    values[len(keys)] = -np.inf
    for value in own:
        table[np.uint32(_bin(value, top, scale, last))] |= np.int32(1)
    return keys, top, scale


@kernel
def _search(values: np.ndarray, low: int, high: int, value: np.float32) -> int:
    """Return the first of items ``low`` to ``high`` (at least one) no more similar than ``value``, or ``high``."""
    if values[low] <= value:  # no search in a bin of equal similarities
        return low
    if values[high - 1] > value:
        return high
    while low < high:
        middle = (low + high) >> 1
        if values[middle] > value:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def _place(
    similarity: np.ndarray,
    table: np.ndarray,
    top: np.float32,
    scale: np.float32,
    bins: np.ndarray,
    close: np.ndarray,
    tally: np.ndarray,
) -> int:
    """Count the items whose bin alone decides their place; return how many share a bin with a relevant item.

    Args:
        similarity: of up to ``BLOCK`` items.
        table: as :func:`_sort_relevant` fills it.
        bins: int32, filled with each item's bin.
        close: int32, filled with the indices of the items that share a bin with a relevant one.
        tally: int32 ``(2 r + 2,)``; ``[2 j]`` counts the items between the relevant items ``j - 1`` and ``j``,
            ``[2 j + 1]`` those that tie with ``j``, the first of its group.
    """
    last = np.float32(len(table) - 2)
    for j in range(len(similarity)):
        bins[j] = _bin(similarity[j], top, scale, last)
    # No branch, which would often be mispredicted; unsigned indices need no check for negative ones.
    count = ZERO
    for j in range(len(similarity)):
        entry = np.uint32(table[np.uint32(bins[j])])
        shared = entry & ONE
        close[count] = np.int32(j)
        count += shared
        tally[entry] += np.int32(shared ^ ONE)
    return int(count)


@kernel
def _place_close(
    similarity: np.ndarray,
    start: int,
    values: np.ndarray,
    table: np.ndarray,
    bins: np.ndarray,
    close: np.ndarray,
    tally: np.ndarray,
    labels: Labels,
    query: int,
    strangers: np.ndarray,
    strange: int,
) -> int:
    """Count the items that share a bin with relevant ones, whose similarities decide their places.

    Args:
        similarity: of items ``start`` and after, as :func:`_place` took them.
        strangers: uint64, (relevant item, row) of the irrelevant items that tie with relevant ones, to which more are
            appended, with room for all of them; of length 0 where positions aren't asked for.
        strange: how many it holds.

    Returns:
        How many it holds afterwards.
    """
    for item in close:
        j = np.uint32(item)
        value = similarity[j]
        place = np.uint32(bins[j])
        first = np.uint32(table[place]) // TWO
        behind = np.uint32(table[place + ONE]) // TWO
        if behind - first > np.uint32(STEPS):
            first = np.uint32(_search(values, np.int64(first), np.int64(behind), value))
        else:
            first += np.uint32(values[first] > value)
            first += np.uint32(values[first] > value)
        tie = values[first] == value
        tally[TWO * first + np.uint32(tie)] += np.int32(1)
        if len(strangers):
            row = start + np.int64(item)
            # Written in any case, and overwritten unless it is irrelevant: most ties are the relevant items themselves.
            strangers[strange] = sort_key(np.uint64(first), row)
            strange += int(tie and not is_relevant(labels, query, row))
    return strange


@kernel
def _untie(values: np.ndarray, keys: np.ndarray, strangers: np.ndarray, positions: np.ndarray) -> None:
    """Order ties by row: move relevant items behind irrelevant ones of equal similarity and smaller row.

    Args:
        values, keys: of the relevant items, as :func:`_sort_relevant` leaves them.
        strangers: (first relevant item of the tie, row) of the irrelevant items in it, in order.
        positions: of the relevant items, in order, as if relevant ones came first within a tie.
    """
    start = 0
    while start < len(strangers):
        first = order_of(strangers[start])
        stop = start
        j = np.int64(first)
        while j < len(positions) and values[j] == values[first]:
            row = row_of(keys[j])
            while stop < len(strangers) and order_of(strangers[stop]) == first and row_of(strangers[stop]) < row:
                stop += 1
            positions[j] += stop - start
            j += 1
        while stop < len(strangers) and order_of(strangers[stop]) == first:
            stop += 1
        start = stop


@kernel
def _rank_one(
    products: np.ndarray,
    inverse_norms: np.ndarray,
    labels: Labels,
    query: int,
    rows: np.ndarray,
    with_positions: bool,
    scratch: Scratch,
    groups: np.ndarray,
    positions: np.ndarray,
) -> int:
    """Rank the gallery for one query that has relevant items, as :func:`rank` does; products ``(tiles, tile)``."""
    items = len(inverse_norms)
    relevant = groups.shape[1]
    similarity, bins, close = scratch.similarity, scratch.bins, scratch.close
    _scale(products, inverse_norms, similarity)
    number = FEWEST_BINS
    while number < BINS_AN_ITEM * relevant and number < MOST_BINS:
        number *= 2
    table = scratch.table[: number + 2]
    values = scratch.values[: relevant + 1]
    keys, top, scale = _sort_relevant(
        similarity, rows, scratch.own[:relevant], scratch.keys[:relevant], scratch.spare[:relevant], values, table
    )

    tally = scratch.tally[: 2 * relevant + 2]
    tally[:] = 0
    strangers = np.empty(BLOCK if with_positions else 0, np.uint64)
    strange = 0
    for start in range(0, items, BLOCK):
        own = similarity[start : min(items, start + BLOCK)]
        count = _place(own, table, top, scale, bins, close, tally)
        if with_positions and strange + count > len(strangers):  # rare: real-valued similarities hardly ever tie
            longer = np.empty(2 * len(strangers) + BLOCK, np.uint64)
            copy(strangers, longer[:strange])
            strangers = longer
        strange = _place_close(own, start, values, table, bins, close[:count], tally, labels, query, strangers, strange)

    total, before, first = 0, np.int64(0), 0
    while first < relevant:
        behind = first + 1
        while values[behind] == values[first]:  # ends at -inf
            behind += 1
        before += tally[2 * first]
        size = np.int64(tally[2 * first + 1])
        groups[0, total] = before
        groups[1, total] = first
        groups[2, total] = size
        groups[3, total] = behind - first
        total += 1
        if with_positions:
            for j in range(first, behind):
                positions[j] = before + 1 + j - first
        before += size
        first = behind
    if strange:
        # They are in order of rows already: a stable sort by group is all that is missing.
        tied = radix_sort(strangers[:strange], np.empty(strange, np.uint64))
        _untie(values, keys, tied, positions)
    return total


@threaded_kernel
def rank(
    part: int,
    parts: int,
    similarities: np.ndarray,
    start: int,
    inverse_norms: np.ndarray,
    labels: Labels,
    order: np.ndarray,
    starts: np.ndarray,
    slots: np.ndarray,
    with_positions: bool,
    counts: np.ndarray,
    groups: np.ndarray,
    positions: np.ndarray,
) -> None:
    """Fill each query's tie groups (items before, relevant before, size, relevant) from its slot on, and count them.

    Args:
        start: the first query's row of the similarities.
        order, starts: gallery rows by label, or as they are listed, and where each query's begin; not read where there
            are masks.
        slots: int64 ``(q + 1,)``, running totals of relevant items.
        positions: int32 ``(slots[-1],)`` if asked for.
    """
    labels = borrowed(labels)
    most = 0
    for i in range(len(counts)):
        most = max(most, slots[i + 1] - slots[i])
    scratch = _make_scratch(most, len(inverse_norms))
    found = np.empty(most if labels.gallery_masks.shape[0] else 0, np.int64)
    for i in own_part(len(counts), part, parts):
        first, last = slots[i], slots[i + 1]
        counts[i] = 0
        rows = relevant_rows(labels, i, order, starts, last - first, found)
        if first < last:
            counts[i] = _rank_one(
                similarities[:, start + i],
                inverse_norms,
                labels,
                i,
                rows,
                with_positions,
                scratch,
                groups[:, first:last],
                positions[first:last],
            )


@threaded_kernel
def close_gaps(part: int, parts: int, groups: np.ndarray, slots: np.ndarray, offsets: np.ndarray) -> None:
    """Move each query's groups from its slot to right behind the last query's: in place, never to the right."""
    for field in own_part(len(groups), part, parts):
        strip = np.empty(STRIP, np.int64)
        for i in range(len(offsets) - 1):
            count = offsets[i + 1] - offsets[i]
            if offsets[i] == slots[i]:
                continue
            for begin in range(0, count, STRIP):
                # By way of memory of their own: where both places may overlap, numbers are moved one by one.
                size = min(STRIP, count - begin)
                source, target = slots[i] + begin, offsets[i] + begin
                copy(groups[field, source : source + size], strip[:size])
                copy(strip, groups[field, target : target + size])
