"""Compiled loops of :mod:`lshbench.ranking.real`.

Similarities are float32 ``(tiles, q, tile)``: products of unit queries with gallery rows, still to be divided by the
rows' norms.  A gallery row is ``tile number * tile + column``.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from lshbench.ranking.keys import LOW, THIRTY_TWO, descending_key, key_value, radix_sort
from lshbench.ranking.labels import is_relevant, share_label
from lshbench.ranking.words import PARALLEL

CHUNK = 8
"""Queries that share working space."""

BLOCK = 4096
"""Similarities of a query that are placed at a time."""

FEWEST_BINS, BINS_A_GROUP, MOST_BINS = 256, 8, 1 << 16
"""Bins of the table over a query's relevant similarities: enough for few to share one, few enough for the cache."""

STEPS = 2
"""Relevant similarities that may share a bin before it counts as crowded."""

CROWDED = np.uint32(1 << 30)
LEAST_SPAN = np.float32(1e-30)


@njit(cache=True, parallel=PARALLEL)
def squared_norms(vectors: np.ndarray, squares: np.ndarray) -> None:
    """Fill ``squares`` float64 ``(n,)``, where float32 squares can't overflow: only NaN and infinity aren't finite."""
    for row in prange(len(vectors)):
        total = 0.0
        for value in vectors[row]:
            total += np.float64(value) * np.float64(value)
        squares[row] = total


@njit(cache=True, inline="always")
def _similarity(product: np.float32, inverse_norm: np.float32) -> np.float32:
    # Adding 0 turns -0 into 0, which it has to tie with.
    return product * inverse_norm + np.float32(0)


@njit(cache=True)
def _scale(products: np.ndarray, inverse_norms: np.ndarray, similarity: np.ndarray) -> None:
    """Fill ``similarity`` float32 ``(n,)`` from products ``(tiles, tile)``: one stream, from which later reads gain."""
    tile = products.shape[1]
    for first in range(0, len(similarity), tile):
        last = min(first + tile, len(similarity))
        own = products[first // tile]
        norms = inverse_norms[first:last]
        target = similarity[first:last]
        for j in range(last - first):
            target[j] = _similarity(own[j], norms[j])


@njit(cache=True)
def _relevant_keys(
    similarity: np.ndarray, mask: np.ndarray, gallery_masks: np.ndarray, rows: np.ndarray, keys: np.ndarray
) -> None:
    """Fill ``keys`` with (similarity, row) of the relevant items, rows ascending."""
    if gallery_masks.shape[0] == 0:
        for j in range(len(rows)):
            keys[j] = descending_key(similarity[rows[j]]) << THIRTY_TWO | np.uint64(rows[j])
    else:
        found = 0
        for row in range(len(similarity)):
            if share_label(mask, gallery_masks, row):
                keys[found] = descending_key(similarity[row]) << THIRTY_TWO | np.uint64(row)
                found += 1


@njit(cache=True, inline="always")
def _bin(value: np.float32, top: np.float32, scale: np.float32, number: int) -> np.int32:
    # Subtraction, product and truncation round without changing order, so that bins keep the order of similarities.
    place = (top - value) * scale
    return np.int32(min(max(place, np.float32(0)), np.float32(number)))


@njit(cache=True)
def _fill_bins(values: np.ndarray, total: int, scale: np.float32, bins: np.ndarray) -> None:
    """Tell for each bin the first group in it or below; crowded ones carry a mark."""
    number = len(bins) - 2
    top = values[0]
    done = 0
    group = 0
    while group < total:
        place = _bin(values[group], top, scale, number)
        bins[done : place + 1] = group
        done = place + 1
        first = group
        while group < total and _bin(values[group], top, scale, number) == place:
            group += 1
        if group - first > STEPS:
            bins[place] |= np.int32(CROWDED)
    bins[done:] = total


@njit(cache=True)
def _search(values: np.ndarray, low: int, high: int, value: np.float32) -> int:
    """Return the first of groups ``low`` to ``high`` that is no more similar, or ``high``."""
    while low < high:
        middle = (low + high) >> 1
        if values[middle] > value:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True)
def _gather_strangers(
    places: np.ndarray,
    label: int,
    mask: np.ndarray,
    gallery_labels: np.ndarray,
    gallery_masks: np.ndarray,
    start: int,
    stop: int,
    strangers: np.ndarray,
    strange: int,
) -> tuple[np.ndarray, int]:
    """Append (group, row) of irrelevant items that tie with relevant ones; they are few where values are real."""
    single = gallery_masks.shape[0] == 0
    for first in range(start, stop, 64):
        last = min(first + 64, stop)
        if single:
            some = np.int32(0)
            own = places[first - start : last - start]
            labels = gallery_labels[first:last]
            for j in range(len(own)):
                some |= own[j] & np.int32(labels[j] != label)
            if some == 0:
                continue
        for row in range(first, last):
            place = places[row - start]
            if place & 1 and not is_relevant(label, mask, gallery_labels, gallery_masks, row):
                if strange == len(strangers):
                    longer = np.empty(4 * strange, np.uint64)
                    longer[:strange] = strangers
                    strangers = longer
                strangers[strange] = np.uint64(place >> 1) << THIRTY_TWO | np.uint64(row)
                strange += 1
    return strangers, strange


@njit(cache=True)
def _untie(firsts: np.ndarray, keys: np.ndarray, strangers: np.ndarray, positions: np.ndarray) -> None:
    """Move relevant items on behind irrelevant ones of equal similarity and smaller row.

    Args:
        strangers: (group, row) of the irrelevant items that tie with relevant ones, in order.
        positions: of the relevant items, in order, as if relevant ones came first within a tie.
    """
    start = 0
    while start < len(strangers):
        group = strangers[start] >> THIRTY_TWO
        stop = start
        for j in range(firsts[group], firsts[group + 1]):
            row = keys[j] & LOW
            while stop < len(strangers) and strangers[stop] >> THIRTY_TWO == group and strangers[stop] & LOW < row:
                stop += 1
            positions[j] += stop - start
        while stop < len(strangers) and strangers[stop] >> THIRTY_TWO == group:
            stop += 1
        start = stop


@njit(cache=True)
def _place(
    values: np.ndarray,
    similarity: np.ndarray,
    bins: np.ndarray,
    scale: np.float32,
    places: np.ndarray,
    tally: np.ndarray,
) -> None:
    """Find the first group that is no more similar than each item; the lowest bit tells whether it ties.

    Args:
        values: similarities of the groups, falling, and -inf behind the last.
        similarity: of the items.
        places: int32, filled with ``2 g + tie`` for each item.
        tally: int32 ``(2 groups + 2,)``; ``[2 g]`` counts items between groups g - 1 and g, ``[2 g + 1]`` those in g.
    """
    top = values[0]
    number = len(bins) - 2
    for j in range(len(similarity)):
        places[j] = _bin(similarity[j], top, scale, number)
    # Unsigned numbers index without a check for negative ones.
    for j in range(len(similarity)):
        value = similarity[j]
        place = np.uint32(places[j])
        group = np.uint32(bins[place])
        if group & CROWDED:
            high = np.uint32(bins[place + np.uint32(1)]) & ~CROWDED
            group = np.uint32(_search(values, np.int64(group & ~CROWDED), np.int64(high), value))
        else:
            # At most STEPS groups of the bin may be more similar: no loop, no branch.
            group += np.uint32(values[group] > value)
            group += np.uint32(values[group] > value)
        place = np.uint32(2) * group + np.uint32(values[group] == value)
        places[j] = np.int32(place)
        tally[place] += np.int32(1)


@njit(cache=True)
def _rank_one(
    products: np.ndarray,
    inverse_norms: np.ndarray,
    label: int,
    mask: np.ndarray,
    gallery_labels: np.ndarray,
    gallery_masks: np.ndarray,
    rows: np.ndarray,
    with_positions: bool,
    scratch: tuple[np.ndarray, ...],
    groups: np.ndarray,
    positions: np.ndarray,
) -> int:
    """Rank one query with relevant items: :func:`rank` with its slices; products ``(tiles, tile)``."""
    all_keys, all_spare, all_values, all_firsts, all_bins, all_tally, similarity, places = scratch
    items = len(inverse_norms)
    relevant = groups.shape[1]
    _scale(products, inverse_norms, similarity)
    keys = all_keys[:relevant]
    _relevant_keys(similarity, mask, gallery_masks, rows, keys)
    keys = radix_sort(keys, all_spare[:relevant])

    # Groups of equal similarity, the most similar first; nothing is less similar than what ends them.
    values = all_values[: relevant + 1]
    firsts = all_firsts[: relevant + 1]
    total = 0
    last = np.uint64(0)
    for j in range(relevant):
        key = keys[j] >> THIRTY_TWO
        if j == 0 or key != last:
            values[total] = key_value(key)
            firsts[total] = j
            total += 1
            last = key
    values[total] = -np.inf
    firsts[total] = relevant

    number = FEWEST_BINS
    while number < BINS_A_GROUP * total and number < MOST_BINS:
        number *= 2
    scale = np.float32(number - 1) / max(values[0] - values[total - 1], LEAST_SPAN)
    bins = all_bins[: number + 2]
    _fill_bins(values, total, scale, bins)

    tally = all_tally[: 2 * total + 2]
    tally[:] = 0
    strangers = np.empty(16, np.uint64)
    strange = np.int64(0)
    for start in range(0, items, BLOCK):
        stop = min(items, start + BLOCK)
        _place(values, similarity[start:stop], bins, scale, places, tally)
        if with_positions:
            strangers, strange = _gather_strangers(
                places, label, mask, gallery_labels, gallery_masks, start, stop, strangers, strange
            )

    before = np.int32(0)
    for group in range(total):
        before += tally[2 * group]
        groups[0, group] = before
        groups[1, group] = firsts[group]
        groups[2, group] = tally[2 * group + 1]
        groups[3, group] = firsts[group + 1] - firsts[group]
        if with_positions:
            for j in range(firsts[group], firsts[group + 1]):
                positions[j] = before + 1 + j - firsts[group]
        before += tally[2 * group + 1]
    if strange:
        # They come in order of rows, so that order by group is all that is missing.
        tied = radix_sort(strangers[:strange], np.empty(strange, np.uint64))
        _untie(firsts, keys, tied, positions)
    return total


@njit(cache=True, parallel=PARALLEL)
def rank(
    similarities: np.ndarray,
    start: int,
    inverse_norms: np.ndarray,
    query_labels: np.ndarray,
    gallery_labels: np.ndarray,
    query_masks: np.ndarray,
    gallery_masks: np.ndarray,
    order: np.ndarray,
    starts: np.ndarray,
    slots: np.ndarray,
    with_positions: bool,
    counts: np.ndarray,
    groups: np.ndarray,
    positions: np.ndarray,
) -> None:
    """Fill the groups of each query (before, relevant before, size, relevant) from its slot on, and count them.

    Args:
        start: the first query's row of the similarities.
        order, starts: gallery rows by label, and where each query's begin; not read where there are masks.
        slots: int64 ``(q + 1,)``, running totals of relevant items.
        positions: int32 ``(slots[-1],)`` if asked for.
    """
    single = gallery_masks.shape[0] == 0
    most = 0
    for i in range(len(counts)):
        most = max(most, slots[i + 1] - slots[i])
    for chunk in prange((len(counts) + CHUNK - 1) // CHUNK):
        scratch = (
            np.empty(most, np.uint64),
            np.empty(most, np.uint64),
            np.empty(most + 1, np.float32),
            np.empty(most + 1, np.int32),
            np.empty(MOST_BINS + 2, np.int32),
            np.empty(2 * most + 2, np.int32),
            np.empty(len(inverse_norms), np.float32),
            np.empty(BLOCK, np.int32),
        )
        for i in range(chunk * CHUNK, min(len(counts), (chunk + 1) * CHUNK)):
            first, last = slots[i], slots[i + 1]
            counts[i] = 0
            if first < last:
                counts[i] = _rank_one(
                    similarities[:, start + i],
                    inverse_norms,
                    query_labels[i] if single else np.int32(0),
                    query_masks[i],
                    gallery_labels,
                    gallery_masks,
                    order[starts[i] : starts[i] + last - first] if single else order,
                    with_positions,
                    scratch,
                    groups[:, first:last],
                    positions[first:last],
                )


@njit(cache=True, parallel=PARALLEL)
def move_groups(source: np.ndarray, slots: np.ndarray, offsets: np.ndarray, target: np.ndarray) -> None:
    """Copy each query's groups to where they follow one another without gaps, as int64."""
    for i in prange(len(offsets) - 1):
        for field in range(4):
            for j in range(offsets[i + 1] - offsets[i]):
                target[field, offsets[i] + j] = source[field, slots[i] + j]


@njit(cache=True, parallel=PARALLEL)
def collect(
    similarities: np.ndarray,
    inverse_norms: np.ndarray,
    first: int,
    k: int,
    kept: np.ndarray,
    filled: np.ndarray,
    limits: np.ndarray,
) -> None:
    """Add to each query's entries (similarity, row) those of a tile that may be among the nearest ``k``.

    Rows come in ascending order, so that a later one has to be more similar than the k-th to displace it.
    """
    size = min(similarities.shape[1], len(inverse_norms) - first)
    norms = inverse_norms[first : first + size]
    for i in prange(len(filled)):
        count = filled[i]
        limit = limits[i]
        products = similarities[i, :size]
        for j in range(size):
            value = _similarity(products[j], norms[j])
            if value > limit:
                kept[i, count] = descending_key(value) << THIRTY_TWO | np.uint64(first + j)
                count += 1
        if count >= 2 * k or (limit == -np.inf and count >= k):
            entries = kept[i, :count].copy()
            entries.sort()
            kept[i, :k] = entries[:k]
            count = k
            limits[i] = key_value(entries[k - 1] >> THIRTY_TWO)
        filled[i] = count


@njit(cache=True, parallel=PARALLEL)
def finish(kept: np.ndarray, filled: np.ndarray, k: int, ids: np.ndarray, distances: np.ndarray) -> None:
    """Put the nearest ``k`` entries in order; there are at least k."""
    for i in prange(len(filled)):
        entries = kept[i, : filled[i]].copy()
        entries.sort()
        for column in range(k):
            ids[i, column] = np.int64(entries[column] & LOW)
            distances[i, column] = np.float32(1) - key_value(entries[column] >> THIRTY_TWO)
