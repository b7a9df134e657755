"""Compiled loops of :mod:`lshbench.ranking.real`.

Similarities are float32 ``(tiles, q, tile)``: products of unit queries with gallery rows, still to be divided by the
rows' norms.  A gallery row is ``tile number * tile + column``.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from lshbench.ranking.keys import LOW, THIRTY_TWO, descending_key, key_value, radix_sort
from lshbench.ranking.labels import is_relevant


@njit(cache=True, parallel=True)
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
def _relevant_keys(
    similarities: np.ndarray,
    inverse_norms: np.ndarray,
    query: int,
    mask: np.ndarray,
    gallery_masks: np.ndarray,
    rows: np.ndarray,
    keys: np.ndarray,
) -> None:
    """Fill ``keys`` with (similarity, row) of the relevant items, rows ascending."""
    tile = similarities.shape[2]
    if gallery_masks.shape[0] == 0:
        for j in range(len(rows)):
            row = rows[j]
            value = _similarity(similarities[row // tile, query, row % tile], inverse_norms[row])
            keys[j] = descending_key(value) << THIRTY_TWO | np.uint64(row)
    else:
        found = 0
        no_labels = np.empty(0, np.int32)
        for row in range(len(inverse_norms)):
            if is_relevant(0, mask, no_labels, gallery_masks, row):
                value = _similarity(similarities[row // tile, query, row % tile], inverse_norms[row])
                keys[found] = descending_key(value) << THIRTY_TWO | np.uint64(row)
                found += 1


@njit(cache=True, parallel=True)
def rank(
    similarities: np.ndarray,
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
        order, starts: gallery rows by label, and where each query's begin; not read where there are masks.
        slots: int64 ``(q + 1,)``, running totals of relevant items.
        positions: int32 ``(slots[-1],)`` if asked for.
    """
    tile = similarities.shape[2]
    items = len(inverse_norms)
    single = gallery_masks.shape[0] == 0
    for i in prange(len(counts)):
        slot = slots[i]
        relevant = slots[i + 1] - slot
        counts[i] = 0
        if relevant == 0:
            continue
        label = query_labels[i] if single else np.int32(0)
        mask = query_masks[i]
        rows = order[starts[i] : starts[i] + relevant] if single else order
        keys = np.empty(relevant, np.uint64)
        _relevant_keys(similarities, inverse_norms, i, mask, gallery_masks, rows, keys)
        keys = radix_sort(keys)

        # Groups of equal similarity, the most similar first.
        values = np.empty(relevant + 1, np.float32)
        firsts = np.empty(relevant + 1, np.int32)
        total = 0
        last = np.uint64(0)
        for j in range(relevant):
            key = keys[j] >> THIRTY_TWO
            if j == 0 or key != last:
                values[total] = key_value(key)
                firsts[total] = j
                total += 1
                last = key
        firsts[total] = relevant
        top, bottom = values[0], values[total - 1]

        # Bin b holds groups bins[b] to bins[b + 1]; bins of a similarity never fall as the similarity falls.
        number = 64
        while number < BINS_A_GROUP * total and number < MOST_BINS:
            number *= 2
        scale = np.float32(number - 1) / max(top - bottom, LEAST_SPAN)
        bins = np.zeros(number + 2, np.int32)
        for group in range(total):
            bins[_bin(values[group], top, scale, number) + 1] += 1
        for b in range(number):
            bins[b + 1] += bins[b]

        # above[g]: items between groups g - 1 and g; equal[g]: items of group g.
        above = np.zeros(total + 1, np.int32)
        equal = np.zeros(total, np.int32)
        seen = np.zeros(total if with_positions else 0, np.int32)
        scaled = np.empty(tile, np.float32)
        places = np.empty(tile, np.int32)
        for number_of_tile in range(similarities.shape[0]):
            base = number_of_tile * tile
            size = min(tile, items - base)
            products = similarities[number_of_tile, i, :size]
            norms = inverse_norms[base : base + size]
            for j in range(size):
                value = _similarity(products[j], norms[j])
                scaled[j] = value
                places[j] = _bin(value, top, scale, number)
            for j in range(size):
                place = places[j]
                low = bins[place]
                high = bins[place + 1]
                if low == high:
                    above[low] += 1
                    continue
                value = scaled[j]
                # The first group of the bin that is no more similar.
                while high - low > 8:
                    middle = (low + high) >> 1
                    if values[middle] > value:
                        low = middle + 1
                    else:
                        high = middle
                while low < high and values[low] > value:
                    low += 1
                if low < total and values[low] == value:
                    if with_positions and is_relevant(label, mask, gallery_labels, gallery_masks, base + j):
                        positions[slot + firsts[low] + seen[low]] = equal[low]
                        seen[low] += 1
                    equal[low] += 1
                else:
                    above[low] += 1

        counts[i] = total
        before = np.int64(0)
        for group in range(total):
            before += above[group]
            groups[0, slot + group] = before
            groups[1, slot + group] = firsts[group]
            groups[2, slot + group] = equal[group]
            groups[3, slot + group] = firsts[group + 1] - firsts[group]
            if with_positions:
                for j in range(slot + firsts[group], slot + firsts[group + 1]):
                    positions[j] += before + 1
            before += equal[group]


BINS_A_GROUP = 4
MOST_BINS = 1 << 16
LEAST_SPAN = np.float32(1e-30)


@njit(cache=True, inline="always")
def _bin(value: np.float32, top: np.float32, scale: np.float32, number: int) -> np.int32:
    # Subtraction, product and truncation round without changing order, so that bins keep the order of similarities.
    place = (top - value) * scale
    return np.int32(min(max(place, np.float32(0)), np.float32(number)))


@njit(cache=True, parallel=True)
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


@njit(cache=True, parallel=True)
def finish(kept: np.ndarray, filled: np.ndarray, k: int, ids: np.ndarray, distances: np.ndarray) -> None:
    """Put the nearest ``k`` entries in order; there are at least k."""
    for i in prange(len(filled)):
        entries = kept[i, : filled[i]].copy()
        entries.sort()
        for column in range(k):
            ids[i, column] = np.int64(entries[column] & LOW)
            distances[i, column] = np.float32(1) - key_value(entries[column] >> THIRTY_TWO)
