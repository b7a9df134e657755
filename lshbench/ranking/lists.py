"""Ranking of candidate lists, for indexes that compare a query with part of the gallery only.

Lists come in compressed rows: query ``i`` was compared with gallery rows ``rows[offsets[i]:offsets[i + 1]]``, in any
order.  Items outside a query's list count as never retrieved.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lshbench.kernels import lists as kernels
from lshbench.kernels.labels import LabelTable
from lshbench.types import Neighbors, RankedBlock, Relevance

BLOCK_ITEMS = 1 << 22
"""Candidates that are sorted at a time: a key of eight bytes each, and up to 36 bytes more for a relevant one."""


def list_blocks(
    offsets: np.ndarray,
    rows: np.ndarray,
    distances: np.ndarray,
    relevance: Relevance,
    *,
    positions: bool = True,
) -> Iterator[RankedBlock]:
    """Rank each query's candidates by (distance, gallery row), block of queries by block.

    Args:
        offsets: integers ``(q + 1,)``, ascending.
        rows: integers ``(m,)``, gallery rows, each at most once in a list.
        distances: ``(m,)``, taken as float32: Hamming distances, or 1 - cosine.
        relevance: labels of the queries and of the whole gallery.
        positions: also give the positions of the relevant candidates in the stable order.

    Yields:
        Rankings; ``total_relevant`` counts the whole gallery, ``ranked`` the list.

    Raises:
        ValueError: lists that don't match the labels, rows outside the gallery or twice in a list, NaN distances.
    """
    offsets = _checked(offsets, rows, distances)
    if len(relevance.queries) != len(offsets) - 1:
        raise ValueError(f"{len(offsets) - 1} lists for {len(relevance.queries)} queries")
    if len(rows) and rows.max() >= len(relevance.gallery):
        raise ValueError(f"row {rows.max()} in the lists of a gallery of {len(relevance.gallery)} items")
    return _blocks(offsets, rows, distances, relevance, positions)


def _blocks(
    offsets: np.ndarray, rows: np.ndarray, distances: np.ndarray, relevance: Relevance, positions: bool
) -> Iterator[RankedBlock]:
    labels = LabelTable.from_relevance(relevance)
    totals = labels.totals
    for start, stop in _steps(offsets):
        own, keys = _sorted_keys(offsets, rows, distances, start, stop)
        own_labels = labels.of_queries(start, stop)
        counts = np.zeros((2, stop - start + 1), np.int64)
        kernels.count_groups(own, keys, own_labels, counts)
        np.cumsum(counts, axis=1, out=counts)
        groups = np.empty((4, counts[0, -1]), np.int64)
        found = np.empty(counts[1, -1] if positions else 0, np.int32)
        kernels.fill_groups(own, keys, own_labels, counts, positions, groups, found)
        yield RankedBlock(
            offsets=counts[0],
            before=groups[0],
            relevant_before=groups[1],
            size=groups[2],
            relevant=groups[3],
            total_relevant=totals[start:stop],
            ranked=np.diff(own),
            positions=found if positions else None,
            position_offsets=counts[1] if positions else None,
        )


def list_neighbors(offsets: np.ndarray, rows: np.ndarray, distances: np.ndarray, k: int) -> Neighbors:
    """Return the k nearest candidates of each query, ties by the smaller gallery row.

    Args:
        offsets, rows, distances: as for :func:`list_blocks`.
        k: how many; where a list is shorter, -1 and infinity fill up.

    Raises:
        ValueError: as :func:`list_blocks`, or k below 1.
    """
    offsets = _checked(offsets, rows, distances)
    if k < 1:
        raise ValueError(f"k={k}: expected at least 1")
    ids = np.full((len(offsets) - 1, k), -1, np.int64)
    nearest = np.full((len(offsets) - 1, k), np.inf, np.float32)
    for start, stop in _steps(offsets):
        own, keys = _sorted_keys(offsets, rows, distances, start, stop)
        kernels.write_nearest(own, keys, ids[start:stop], nearest[start:stop])
    return Neighbors(ids, nearest, np.diff(offsets))


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


def _steps(offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield runs of queries whose lists together have about :data:`BLOCK_ITEMS` candidates."""
    start = 0
    while start < len(offsets) - 1:
        stop = int(np.searchsorted(offsets, offsets[start] + BLOCK_ITEMS, "right")) - 1
        stop = min(max(stop, start + 1), len(offsets) - 1)
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
