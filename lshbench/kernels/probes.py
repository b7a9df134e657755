"""Kernels of hash tables: bucket keys, building, multi-probing, and the candidates in the buckets probed.

Throughout, with L tables over ``s`` bits each and n gallery items (:class:`lshbench.index.tables.BucketTables`):

- codes uint8 ``(n, ceil(bits / 8))`` as :class:`lshbench.types.Codes` packs them;
- columns int32 ``(L, s)``: the bits of the code that make a table's bucket key, most significant first;
- seen uint64 ``(ceil(n / 64),)``: one bit an item, set for a query's candidates; all zero between queries.  At one bit
  an item it stays in the processor's cache, where a stamp an item or a hash set would not.

A set of perturbed bits is a mask over a table's bits in the order of their costs; see :func:`_further_keys`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lshbench.kernels.compilation import kernel
from lshbench.kernels.frames import Int32Matrix, Int32Vector, Int64Vector, UInt64Vector
from lshbench.kernels.threads import own_part, threaded_kernel
from lshbench.kernels.words import lowest_bit, prefetch

FINEST = np.float64(1 << 40)
"""Largest cost of a perturbed bit.  Costs are integers, so that sums don't depend on the order of addition."""

ONE, SIX, BIT = np.uint64(1), np.uint64(6), np.uint64(63)
LAST = 8
"""Low bits of a heap entry's mark, which hold the index of the last bit in its set."""


class Buckets(NamedTuple):
    """Where the buckets of each table start and stop within its ids."""

    shift: int  # low bits of a key that the directory doesn't read; -1 where every possible key has an entry
    offsets: Int32Vector  # a table's entries, one more than its buckets, begin at begins[table] + table
    keys: UInt64Vector  # the tables' distinct keys, each table's ascending; empty where every key has an entry
    begins: Int64Vector  # (L + 1,), where each table's keys begin
    directory: Int32Matrix  # (L, 2^d + 1), how many of the table's keys have smaller top bits


class Tables(NamedTuple):
    """Hash tables, and which of their buckets a query probes."""

    columns: Int32Matrix  # (L, s)
    used: int  # how many of the tables, the first ones, are probed
    buckets: Buckets  # of all tables
    ids: Int32Matrix  # (L, n), gallery rows bucket by bucket
    flips: UInt64Vector  # these two as `undirected_probes` returns them
    owners: Int32Vector


class _Heap(NamedTuple):
    """Binary heap of sets of perturbed bits, lowest score first."""

    scores: Int64Vector  # the sums of the bits' costs
    masks: UInt64Vector  # the sets
    marks: Int64Vector  # the table and, in the low `LAST` bits, the last bit of the set


@kernel
def bucket_key(code: np.ndarray, columns: np.ndarray) -> np.uint64:
    """Return the key of a code's bucket in one table."""
    key = np.uint64(0)
    for column in columns:
        key = key << ONE | np.uint64(code[column >> 3] >> np.uint8(7 - (column & 7)) & 1)
    return key


@threaded_kernel
def fill_bucket_keys(part: int, parts: int, codes: np.ndarray, columns: np.ndarray, keys: np.ndarray) -> None:
    """Fill ``keys`` uint64 ``(n,)`` with the bucket keys of one table, whose columns are int32 ``(s,)``."""
    for i in own_part(len(keys), part, parts):
        keys[i] = bucket_key(codes[i], columns)


@threaded_kernel
def merge_dense(
    part: int,
    parts: int,
    codes: np.ndarray,
    columns: np.ndarray,
    old_offsets: np.ndarray,
    old_ids: np.ndarray,
    offsets: np.ndarray,
    ids: np.ndarray,
) -> None:
    """Fill tables that have an entry for every key, by counting sort: in each bucket old items, then new ones.

    Args:
        old_offsets, offsets: int32 ``(L, 2^s + 1)``.
        old_ids, ids: int32 ``(L, m)`` and ``(L, m + n)``; the new items are rows m, m + 1, ...
    """
    old = old_ids.shape[1]
    buckets = offsets.shape[1] - 1
    for table in own_part(len(columns), part, parts):
        starts = offsets[table]
        starts[:] = 0
        # Keys are computed twice, which is cheaper than storing them.
        for i in range(len(codes)):
            starts[bucket_key(codes[i], columns[table]) + ONE] += 1
        slots = np.empty(buckets, np.int32)
        place = 0
        for bucket in range(buckets):
            new = starts[bucket + 1]
            starts[bucket] = place
            for j in range(old_offsets[table, bucket], old_offsets[table, bucket + 1]):
                ids[table, place] = old_ids[table, j]
                place += 1
            slots[bucket] = place
            place += new
        starts[buckets] = place
        for i in range(len(codes)):
            key = bucket_key(codes[i], columns[table])
            ids[table, slots[key]] = old + i
            slots[key] += 1


@kernel(inline="always")  # in a call, references to all arrays of ``buckets`` would be counted
def find_bucket(table: int, key: np.uint64, buckets: Buckets) -> tuple[int, int]:
    """Return where a bucket's rows start and stop within the table's ids."""
    shift, offsets, keys, begins, directory = buckets
    base = begins[table] + table
    if shift < 0:
        entry = base + np.int64(key)
        return offsets[entry], offsets[entry + 1]
    top = np.int64(key >> np.uint64(shift))
    first = begins[table]
    low = first + directory[table, top]
    behind = first + directory[table, top + 1]
    high = behind
    while low < high:
        middle = (low + high) >> 1
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    if low == behind or keys[low] != key:
        return 0, 0
    return offsets[low + table], offsets[low + table + 1]


@kernel
def _precedes(heap: _Heap, place: int, other: int) -> bool:
    """Return whether an entry of the heap comes before another: by score, then by mask, then by table."""
    if heap.scores[place] != heap.scores[other]:
        return heap.scores[place] < heap.scores[other]
    if heap.masks[place] != heap.masks[other]:
        return heap.masks[place] < heap.masks[other]
    return heap.marks[place] < heap.marks[other]


@kernel
def _swap(heap: _Heap, place: int, other: int) -> None:
    scores, masks, marks = heap
    scores[place], scores[other] = scores[other], scores[place]
    masks[place], masks[other] = masks[other], masks[place]
    marks[place], marks[other] = marks[other], marks[place]


@kernel
def _sift_up(heap: _Heap, place: int) -> None:
    while place > 0:
        above = (place - 1) >> 1
        if not _precedes(heap, place, above):
            return
        _swap(heap, place, above)
        place = above


@kernel
def _sift_down(heap: _Heap, place: int, size: int) -> None:
    while True:
        below = 2 * place + 1
        if below >= size:
            return
        if below + 1 < size and _precedes(heap, below + 1, below):
            below += 1
        if not _precedes(heap, below, place):
            return
        _swap(heap, place, below)
        place = below


@kernel
def bit_costs(projections: np.ndarray, costs: np.ndarray) -> None:
    """Fill ``costs`` int64 ``(bits,)`` of flipping each bit: its squared projection, at most :data:`FINEST`."""
    largest = 0.0
    for value in projections:
        largest = max(largest, np.float64(value) * np.float64(value))
    scale = FINEST / largest if largest > 0 else 0.0
    for j in range(len(costs)):
        value = np.float64(projections[j])
        costs[j] = np.int64(value * value * scale)


@kernel
def _further_keys(costs: np.ndarray, columns: np.ndarray, keys: np.ndarray, owners: np.ndarray) -> np.int64:
    """Append the bucket keys of the lowest scores over all tables to a query's own; return how many keys there are.

    The score of a set of perturbed bits is the sum of their costs.  A heap gives the sets in ascending order: each one
    taken out is replaced by two successors, itself with its last bit (in the order of costs) shifted to the next one,
    and itself expanded by that next bit.  Lv, Josephson, Wang, Charikar, Li, Multi-probe LSH, VLDB 2007, section 4.4,
    with one heap for all tables, as scores are comparable between tables.  Equal scores are ordered by mask, then by
    table; a successor has a larger mask, so that the order is that of sorting all sets.

    Args:
        costs: of flipping each bit of the code; where all are equal, buckets come in the order of Hamming distance.
        columns: of the tables in use.
        keys, owners: as :func:`_visited_keys` returns them; the query's own key in each table comes first.
    """
    used, size = columns.shape
    flips = np.empty((used, size), np.uint64)
    prices = np.empty((used, size), np.int64)
    scores = np.empty(len(keys) + 1, np.int64)
    masks = np.empty(len(keys) + 1, np.uint64)
    marks = np.empty(len(keys) + 1, np.int64)
    heap = _Heap(scores, masks, marks)
    entries = 0
    for table in range(used):
        for j in range(size):
            price = costs[columns[table, j]]
            flip = ONE << np.uint64(size - 1 - j)
            k = j
            while k > 0 and prices[table, k - 1] > price:
                prices[table, k] = prices[table, k - 1]
                flips[table, k] = flips[table, k - 1]
                k -= 1
            prices[table, k] = price
            flips[table, k] = flip
        scores[entries] = prices[table, 0]
        masks[entries] = ONE
        marks[entries] = table << LAST
        _sift_up(heap, entries)
        entries += 1
    filled = np.int64(used)
    for _ in range(len(keys) - used):
        if entries == 0:
            break
        score, mask, mark = scores[0], masks[0], marks[0]
        owner, last = mark >> LAST, mark & (1 << LAST) - 1
        key = keys[owner]
        rest = mask
        while rest:
            key ^= flips[owner, lowest_bit(rest)]
            rest &= rest - ONE
        keys[filled] = key
        owners[filled] = owner
        filled += 1
        if last + 1 < size:
            more = score + prices[owner, last + 1]
            there = ONE << np.uint64(last + 1)
            # The shifted set overwrites the one taken out, which saves a removal from the heap.
            scores[0] = more - prices[owner, last]
            masks[0] = (mask ^ ONE << np.uint64(last)) | there
            marks[0] = mark + 1
            _sift_down(heap, 0, entries)
            scores[entries] = more
            masks[entries] = mask | there
            marks[entries] = mark + 1
            _sift_up(heap, entries)
            entries += 1
        else:
            entries -= 1
            scores[0], masks[0], marks[0] = scores[entries], masks[entries], marks[entries]
            _sift_down(heap, 0, entries)
    return filled


@kernel
def undirected_probes(probes: int, columns: np.ndarray) -> tuple:
    """Return which buckets a query without projections probes: those whose keys differ from its own in the fewest bits.

    A query with projections probes as many.

    Returns:
        The bits, uint64, in which each key differs from the query's own, and its table, int32; own keys come first.
    """
    used, size = columns.shape
    room = used * probes
    if size < 40:
        room = min(room, used << size)
    keys, owners = np.zeros(room, np.uint64), np.empty(room, np.int32)
    for table in range(used):
        owners[table] = table
    count = used
    if probes > 1:
        costs = np.ones(columns.max() + 1, np.int64)
        count = _further_keys(costs, columns, keys, owners)
    return keys[:count], owners[:count]


@kernel
def _visited_keys(
    code: np.ndarray, projections: np.ndarray, probes: int, columns: np.ndarray, flips: np.ndarray, owners: np.ndarray
) -> tuple:
    """Return the keys of the buckets that a query probes, uint64, and their tables, int32."""
    used = len(columns)
    keys = np.empty(len(flips), np.uint64)
    for table in range(used):
        keys[table] = bucket_key(code, columns[table])
    if len(projections) and probes > 1:
        owners = owners.copy()
        costs = np.empty(len(projections), np.int64)
        bit_costs(projections, costs)
        _further_keys(costs, columns, keys, owners)
    else:
        for j in range(used, len(keys)):
            keys[j] = keys[owners[j]] ^ flips[j]
    return keys, owners


@kernel
def _ranges(keys: np.ndarray, buckets: Buckets, found: np.ndarray) -> np.uint64:
    """Fill ``found`` with start and stop of those of the first table's buckets that aren't empty; return its length."""
    offsets = buckets.offsets
    count = np.uint64(0)
    if buckets.shift < 0:  # empty ones are overwritten: a branch would often be mispredicted
        for key in keys:
            start, stop = offsets[key], offsets[key + ONE]
            found[count] = start
            found[count + ONE] = stop
            count += np.uint64(2 * (start < stop))
        return count
    for key in keys:
        start, stop = find_bucket(0, key, buckets)
        if start < stop:
            found[count] = start
            found[count + ONE] = stop
            count += np.uint64(2)
    return count


@kernel
def gather(
    code: np.ndarray,
    projections: np.ndarray,
    probes: int,
    tables: Tables,
    seen: np.ndarray,
    found: np.ndarray,
    ranges: bool,
) -> np.int64:
    """Fill ``found`` int32 with the rows of one query's candidates, each once, and return how many there are.

    Args:
        code: uint8 ``(ceil(bits / 8),)``.
        projections: float32 ``(bits,)``, or empty.
        probes: buckets probed, as a multiple of the tables in use.
        seen: all zero, and all zero again afterwards.
        found: of length ``2 n + 2``.
        ranges: with one table in use, fill in where each bucket starts and stops, and not the rows.
    """
    columns, used, buckets, ids, flips, owners = tables
    # All keys first: a call in the loop over them, with its many arguments, would take longer than a bucket.
    keys, owners = _visited_keys(code, projections, probes, columns[:used], flips, owners)
    count = np.uint64(0)
    if used == 1:  # buckets of one table are disjoint
        count = _ranges(keys, buckets, found)
        return np.int64(count) if ranges else _expand(ids[0], found, np.int64(count))
    # All buckets are located before any is read: loads that don't depend on each other overlap.
    starts, stops = np.empty(len(keys), np.int32), np.empty(len(keys), np.int32)
    for visit in range(len(keys)):
        place = find_bucket(owners[visit], keys[visit], buckets)
        starts[visit], stops[visit] = place
        prefetch(ids[owners[visit]], np.uint64(starts[visit]))
    for visit in range(len(keys)):
        # A row seen before is overwritten by the next one: a branch would often be mispredicted.
        for row in ids[owners[visit], starts[visit] : stops[visit]]:
            word, bit = np.uint64(row) >> SIX, np.uint64(row) & BIT
            before = seen[word]
            seen[word] = before | ONE << bit
            found[count] = row
            count += ~(before >> bit) & ONE
    for row in found[:count]:
        seen[np.uint64(row) >> SIX] = np.uint64(0)
    return np.int64(count)


@kernel
def _expand(ids: np.ndarray, found: np.ndarray, count: np.int64) -> np.int64:
    """Replace ranges of one table's ids by the rows there; return how many."""
    # Ranges go to the end of the memory first, where rows written from its start never overtake them.
    first = len(found) - count
    for j in range(count - 1, -1, -1):
        found[first + j] = found[j]
    rows = np.int64(0)
    for place in range(first, len(found), 2):
        start, stop = found[place], found[place + 1]
        for j in range(stop - start):
            found[rows + j] = ids[start + j]
        rows += stop - start
    return rows
