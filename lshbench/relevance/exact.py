"""Exact nearest neighbours of queries by cosine, Euclidean distance or inner product."""

from __future__ import annotations

import numpy as np

from lshbench.data.base import Metric
from lshbench.ranking.cosine import VectorGallery, cosine_neighbors
from lshbench.types import Progress

QUERIES, TILE = 512, 1 << 14
"""Queries and gallery items whose distances are computed at a time: 64 MB in float64."""

MORE = 16
"""Neighbours looked for beyond the k-th: those at the same distance."""


def nearest_with_ties(
    queries: np.ndarray, gallery: np.ndarray, k: int, metric: Metric, progress: Progress
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the k nearest gallery items of each query, and all that are as near as the k-th.

    Args:
        queries: float32 ``(q, d)``.
        gallery: float32 ``(n, d)``.
        k: at least 1; beyond the gallery's size, all items are.
        metric: what is nearest; of distances, those equal in float32 are ties.
        progress: reports the queries searched.

    Returns:
        Offsets int64 ``(q + 1,)``, gallery rows int64, nearest first and ties by row, and distances float32:
        1 - cosine, the Euclidean distance, or the inner product with its sign changed.
    """
    found_rows, found_distances, counts = [], [], []
    k = min(k, len(gallery))
    prepared = VectorGallery.from_vectors(gallery) if metric == "cosine" else None
    with progress(f"exact neighbours by {metric}", total=len(queries), unit="queries") as advance:
        for start in range(0, len(queries), QUERIES):
            asked = queries[start : start + QUERIES]
            count = min(k + MORE, len(gallery))
            while True:
                if prepared is not None:
                    found = cosine_neighbors(asked, prepared, count)
                    rows, distances = found.ids, found.distances
                else:
                    rows, distances = _nearest(asked, gallery, count, metric)
                if count == len(gallery) or (distances[:, -1] > distances[:, k - 1]).all():
                    break
                count = min(4 * count, len(gallery))
            near = distances <= distances[:, k - 1 : k]
            found_rows.append(rows[near])
            found_distances.append(distances[near])
            counts.append(near.sum(axis=1))
            advance(len(asked))
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    return offsets, np.concatenate(found_rows), np.concatenate(found_distances)


def distances_of(queries: np.ndarray, gallery: np.ndarray, rows: np.ndarray, metric: Metric) -> np.ndarray:
    """Return the distances of queries ``(q, d)`` to gallery rows, int64 ``(q, k)``, as float32 ``(q, k)``."""
    found = np.empty(rows.shape, np.float32)
    for i, query in enumerate(queries.astype(np.float64)):
        vectors = gallery[rows[i]].astype(np.float64)
        if metric == "euclidean":
            found[i] = np.sqrt(((vectors - query) ** 2).sum(axis=1))
            continue
        found[i] = -(vectors @ query)
        if metric == "cosine":
            norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
            found[i] = 1 + np.divide(found[i], norms, out=np.zeros(len(norms)), where=norms > 0)
    return found


def _nearest(queries: np.ndarray, gallery: np.ndarray, count: int, metric: Metric) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and distances of the nearest, ``(q, count)``; among ties at the last place, any."""
    asked = queries.astype(np.float64)
    lengths = (asked**2).sum(axis=1, keepdims=True)
    rows, distances = np.empty((len(asked), 0), np.int64), np.empty((len(asked), 0), np.float32)
    for start in range(0, len(gallery), TILE):
        tile = gallery[start : start + TILE].astype(np.float64)
        # In float64, as the difference of large numbers is small for near neighbours.
        found = -(asked @ tile.T)
        if metric == "euclidean":
            found = np.sqrt(np.maximum(2 * found + lengths + (tile**2).sum(axis=1), 0))
        both = np.concatenate([distances, found.astype(np.float32)], axis=1)
        numbers = np.broadcast_to(np.arange(start, start + len(tile)), found.shape)
        both_rows = np.concatenate([rows, numbers], axis=1)
        if both.shape[1] > count:
            kept = np.argpartition(both, count - 1, axis=1)[:, :count]
            both, both_rows = np.take_along_axis(both, kept, axis=1), np.take_along_axis(both_rows, kept, axis=1)
        rows, distances = both_rows, both
    order = np.lexsort((rows, distances), axis=1)
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(distances, order, axis=1)
