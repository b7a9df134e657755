"""Ranking of candidate lists, for indexes that compare a query with part of the gallery only.

Lists are stored as compressed sparse rows: query ``i`` was compared with gallery rows
``rows[offsets[i]:offsets[i + 1]]``, in any order.  Items outside a query's list count as never retrieved.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from lshbench.kernels import lists as kernels
from lshbench.kernels.labels import Labels, LabelTable
from lshbench.ranking.listed import judged, left_out_of
from lshbench.types import Neighbors, RankedBlock, Relevance

BLOCK_ITEMS = 1 << 22
"""Candidates that are sorted at a time: a key of eight bytes each, and up to 36 bytes more for a relevant one."""


def list_blocks(
    offsets: np.ndarray,
    rows: np.ndarray,
    distances: np.ndarray,
    relevance: Relevance,
    *,
    positions: int | None = None,
    bits: int | None = None,
) -> Iterator[RankedBlock]:
    """Rank each query's candidates by (distance, gallery row), a block of queries at a time.

    Args:
        offsets: integers ``(q + 1,)``, ascending.
        rows: integers ``(m,)``, gallery rows, each at most once in a list.
        distances: ``(m,)``, taken as float32: Hamming distances, or 1 - cosine.
        relevance: of the whole gallery to the queries.
        positions: 0 for none; else all positions of the relevant candidates in the stable order are given.
        bits: the greatest distance, where they are Hamming distances.

    Yields:
        Rankings, with ``within`` if ``bits`` is given; ``total_relevant`` counts the whole gallery, ``ranked`` the
        list.

    Raises:
        ValueError: lists that don't match the labels, rows outside the gallery or twice in a list, NaN distances.
    """
    offsets = _checked(offsets, rows, distances)
    if len(relevance.queries) != len(offsets) - 1:
        raise ValueError(f"{len(offsets) - 1} lists for {len(relevance.queries)} queries")
    if len(rows) and rows.max() >= len(relevance.gallery):
        raise ValueError(f"row {rows.max()} in the lists of a gallery of {len(relevance.gallery)} items")
    return _blocks(offsets, rows, distances, relevance, positions != 0, bits)


def _blocks(
    offsets: np.ndarray,
    rows: np.ndarray,
    distances: np.ndarray,
    relevance: Relevance,
    positions: bool,
    bits: int | None,
) -> Iterator[RankedBlock]:
    labels = LabelTable.from_relevance(relevance)
    totals = labels.totals
    for start, stop in query_blocks(np.diff(offsets), BLOCK_ITEMS):
        own, keys = _sorted_keys(offsets, rows, distances, start, stop)
        block, order = _ranked(own, keys, labels.of_queries(start, stop), totals[start:stop], positions)
        if bits is not None:
            block = replace(block, within=_within(offsets[start : stop + 1], distances, bits))
        if relevance.listed is not None:
            part = relevance.rows(start, stop)
            assert part.listed is not None
            if labels.listed:
                block = judged(block, order, part.listed, None)
            else:
                table = LabelTable.of_listed(part.listed, len(relevance.gallery))
                block = left_out_of(block, *_ranked(own, keys, table.labels, table.totals, positions), part, None)
        yield block


def _ranked(
    own: np.ndarray, keys: np.ndarray, labels: Labels, totals: np.ndarray, positions: bool
) -> tuple[RankedBlock, np.ndarray]:
    """Return rankings of sorted lists, and the places of their rows in lists of relevant ones, if there are such."""
    counts = np.zeros((2, len(totals) + 1), np.int64)
    kernels.count_groups(own, keys, labels, counts)
    np.cumsum(counts, axis=1, out=counts)
    groups = np.empty((4, counts[0, -1]), np.int64)
    found = np.empty(counts[1, -1] if positions else 0, np.int32)
    kernels.fill_groups(own, keys, labels, counts, positions, groups, found)
    order = np.empty(counts[1, -1] if len(labels.offsets) else 0, np.int64)
    if len(order):
        kernels.find_in_order(own, keys, labels, counts[1], order)
        order -= labels.offsets[0]
    block = RankedBlock(
        offsets=counts[0],
        before=groups[0],
        relevant_before=groups[1],
        size=groups[2],
        relevant=groups[3],
        total_relevant=totals,
        ranked=np.diff(own),
        positions=found if positions else None,
        position_offsets=counts[1] if positions else None,
    )
    return block, order


def _within(offsets: np.ndarray, distances: np.ndarray, bits: int) -> np.ndarray:
    """Return how many candidates of each list are within each Hamming distance, int64 ``(q, bits + 1)``."""
    queries = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    cells = queries * (bits + 1) + distances[offsets[0] : offsets[-1]].astype(np.int64)
    counts = np.bincount(cells, minlength=(len(offsets) - 1) * (bits + 1))
    return counts.reshape(-1, bits + 1).cumsum(axis=1)


def list_neighbors(offsets: np.ndarray, rows: np.ndarray, distances: np.ndarray, k: int) -> Neighbors:
    """Return the k nearest candidates of each query, ties by the smaller gallery row.

    Args:
        offsets, rows, distances: as for :func:`list_blocks`.
        k: how many; shorter lists are padded with -1 and infinity.

    Raises:
        ValueError: as :func:`list_blocks`, or k below 1.
    """
    offsets = _checked(offsets, rows, distances)
    results = Neighbors.unfilled(np.diff(offsets), k)
    for start, stop in query_blocks(np.diff(offsets), BLOCK_ITEMS):
        own, keys = _sorted_keys(offsets, rows, distances, start, stop)
        kernels.write_nearest(own, keys, results.ids[start:stop], results.distances[start:stop])
    return results


def as_lists(distances: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return results ``(q, k)``, -1 where there are fewer, as offsets ``(q + 1,)``, gallery rows and distances."""
    found = ids >= 0
    return np.concatenate([[0], np.cumsum(found.sum(axis=1))]), ids[found], distances[found]


def _checked(offsets: np.ndarray, rows: np.ndarray, distances: np.ndarray) -> np.ndarray:
    offsets = np.asarray(offsets, np.int64)
    if len(rows) != len(distances) or offsets[0] != 0 or offsets[-1] != len(rows) or (np.diff(offsets) < 0).any():
        raise ValueError(
            f"offsets from {offsets[0]} to {offsets[-1]} for {len(rows)} rows and {len(distances)} distances: "
            "expected them to ascend from 0 to the number of rows"
        )
    if len(rows) and rows.min() < 0:
        raise ValueError(f"row {rows.min()} in the lists: expected rows of the gallery")
    if np.isnan(distances).any():
        raise ValueError(f"{np.isnan(distances).sum()} of {len(distances)} distances are NaN")
    return offsets


def query_blocks(counts: np.ndarray, limit: int) -> Iterator[tuple[int, int]]:
    """Yield runs of queries (first, one past the last) with at most ``limit`` candidates, or of one query with more.

    Args:
        counts: integers ``(q,)``, candidates of each query.
    """
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + limit, side="right")))
        yield start, stop
        start = stop


def _sorted_keys(
    offsets: np.ndarray, rows: np.ndarray, distances: np.ndarray, start: int, stop: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the offsets and the sorted (distance, row) keys, uint64, of queries ``start`` to ``stop``."""
    items = slice(offsets[start], offsets[stop])
    own = offsets[start : stop + 1] - offsets[start]
    keys = np.empty(own[-1], np.uint64)
    twice = np.zeros(stop - start, np.bool_)
    kernels.sort_lists(own, rows[items].astype(np.int64), distances[items].astype(np.float32), keys, twice)
    if twice.any():
        raise ValueError(f"the list of query {start + int(np.argmax(twice))} holds a row twice")
    return own, keys
