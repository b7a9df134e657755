"""Results for people: items at equal Hamming distance in the order of a finer measure, and how many share a distance.

Measures don't use this: they are expected values over the order of ties.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lshbench.index.base import Index
from lshbench.types import Codes, Encoded, Neighbors

MORE = 4
"""Times as many results as were asked for that are looked at first."""

BLOCK_QUERIES = 64
"""Queries searched at a time: each may have a long list of items at the same distance."""

Closeness = Callable[[int, np.ndarray], np.ndarray]
"""Callback: how close gallery rows, int64 ``(m,)``, are to a query, given by its row; the largest value is closest."""


def untied(index: Index, queries: Encoded, k: int, closeness: Closeness | None) -> Neighbors:
    """Return the first ``k`` results of each query, those at equal Hamming distance closest first.

    Every item that the index finds at the distance of the last result is looked at, too.  Other rankings have no ties
    but exact copies, and come as the index orders them.

    Args:
        index: built, at the point to search at.
        queries: encoded.
        k: results of each query.
        closeness: the finer measure; None leaves ties in the order of gallery rows.

    Returns:
        Results with :attr:`lshbench.types.Neighbors.tied`.
    """
    blocks = [
        _untied(index, queries[start : start + BLOCK_QUERIES], start, k, closeness)
        for start in range(0, len(queries), BLOCK_QUERIES)
    ]
    columns = zip(*((one.ids, one.distances, one.candidates, one.tied) for one in blocks), strict=True)
    return Neighbors(*map(np.concatenate, columns))


def by_cosine(queries: np.ndarray, gallery: np.ndarray) -> Closeness:
    """Return closeness by cosine of features, float32 ``(q, d)`` and ``(n, d)``."""

    def closeness(query: int, rows: np.ndarray) -> np.ndarray:
        vectors = np.asarray(gallery[rows], np.float64)
        norms = np.linalg.norm(vectors, axis=1)
        return vectors @ queries[query].astype(np.float64) / np.where(norms > 0, norms, 1)

    return closeness


def by_projections(queries: np.ndarray, packed: np.ndarray) -> Closeness:
    """Return closeness of queries' projections to codes of -1 and 1, which can't tell equal codes apart.

    Args:
        queries: projections, float32 ``(q, bits)``.
        packed: codes, uint8 ``(n, ceil(bits / 8))``.
    """
    bits = queries.shape[1]

    def closeness(query: int, rows: np.ndarray) -> np.ndarray:
        signs = 2.0 * Codes(np.ascontiguousarray(packed[rows]), bits).unpack() - 1
        return signs @ queries[query].astype(np.float64)

    return closeness


def _untied(index: Index, queries: Encoded, first: int, k: int, closeness: Closeness | None) -> Neighbors:
    hamming = index.ranking == "hamming"
    asked = max(k, min(MORE * k, len(index))) if hamming else k
    found = index.search(queries, asked)
    # Until every list ends beyond the distance of its k-th result.
    while hamming and asked < len(index) and _cut_within_ties(found.distances, k):
        asked = min(MORE * asked, len(index))
        found = index.search(queries, asked)
    tied = np.array([_counts(row) for row in found.distances])[:, :k]
    ids, distances = found.ids[:, :k].copy(), found.distances[:, :k]
    if closeness is None or not hamming:
        return replace(found, ids=ids, distances=distances, tied=np.where(ids >= 0, tied, 0))
    for query in range(len(ids)):
        (rows,) = np.nonzero((found.ids[query] >= 0) & (found.distances[query] <= distances[query, -1]))
        items = found.ids[query, rows]
        order = np.lexsort((items, -closeness(first + query, items), found.distances[query, rows]))[:k]
        ids[query, : len(order)] = items[order]
    return replace(found, ids=ids, distances=distances, tied=np.where(ids >= 0, tied, 0))


def _cut_within_ties(distances: np.ndarray, k: int) -> bool:
    """Return whether there may be more items at the distance of a k-th result than were looked at."""
    last = distances[:, -1]
    return bool(((last == distances[:, k - 1]) & np.isfinite(last)).any())


def _counts(distances: np.ndarray) -> np.ndarray:
    """Return how often each of ascending distances is there, int64 ``(m,)``."""
    _, places, counts = np.unique(distances, return_inverse=True, return_counts=True)
    return counts[places]
