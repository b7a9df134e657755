"""Exact nearest neighbours of queries by cosine, Euclidean distance or inner product."""

from __future__ import annotations

import numpy as np

from lshbench.data.base import Metric
from lshbench.ranking.cosine import VectorGallery, cosine_neighbors
from lshbench.types import Progress

QUERIES, TILE = 512, 1 << 14
"""Queries and gallery items whose distances are computed at a time: 64 MB in float64."""

MORE = 16
"""Candidates looked at beyond the k-th neighbour: those at the same distance."""

MARGIN = 1e-5
"""Difference of distances, relative to them or to 1, that the rounding of matrix products stays below."""


def nearest_with_ties(
    queries: np.ndarray, gallery: np.ndarray, k: int, metric: Metric, progress: Progress
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the k nearest gallery items of each query, and all that are as near as the k-th.

    Matrix products choose candidates; their distances are then computed one by one, so that equal vectors tie wherever
    they stand in the gallery.

    Args:
        queries: float32 ``(q, d)``.
        gallery: float32 ``(n, d)``.
        k: at least 1; beyond the gallery's size, all items are.
        metric: what is nearest.
        progress: reports the queries searched.

    Returns:
        Offsets int64 ``(q + 1,)``, gallery rows int64, nearest first and ties by row, and their distances
        (:func:`distances_of`).
    """
    rows: list[np.ndarray] = []
    distances: list[np.ndarray] = []
    k = min(k, len(gallery))
    prepared = VectorGallery.from_vectors(gallery) if metric == "cosine" else None
    with progress(f"exact neighbours by {metric}", total=len(queries), unit="queries") as advance:
        for start in range(0, len(queries), QUERIES):
            asked = queries[start : start + QUERIES]
            near: list[tuple[np.ndarray, np.ndarray] | None] = [None] * len(asked)
            left, count = np.arange(len(asked)), min(k + MORE, len(gallery))
            while len(left):
                if prepared is not None:
                    found = cosine_neighbors(asked[left], prepared, count).ids
                else:
                    found = _nearest(asked[left], gallery, count, metric)
                exact = distances_of(asked[left], gallery, found, metric)
                order = np.lexsort((found, exact), axis=1)
                found, exact = np.take_along_axis(found, order, axis=1), np.take_along_axis(exact, order, axis=1)
                last = exact[:, k - 1]
                done = exact[:, -1] > last + MARGIN * np.maximum(np.abs(last), 1)
                done |= count == len(gallery)
                for place in np.flatnonzero(done):
                    own = exact[place] <= last[place]
                    near[left[place]] = found[place, own], exact[place, own]
                left, count = left[~done], min(4 * count, len(gallery))
            rows += [pair[0] for pair in near if pair is not None]
            distances += [pair[1] for pair in near if pair is not None]
            advance(len(asked))
    offsets = np.concatenate([[0], np.cumsum([len(own) for own in rows])])
    return offsets, np.concatenate(rows), np.concatenate(distances)


def distances_of(queries: np.ndarray, gallery: np.ndarray, rows: np.ndarray, metric: Metric) -> np.ndarray:
    """Return the distances of queries, float32 ``(q, d)``, to gallery rows, int64 ``(q, k)``, as float64 ``(q, k)``.

    1 - cosine, the Euclidean distance, or the inner product with its sign changed.
    """
    found = np.empty(rows.shape)
    for i, query in enumerate(queries.astype(np.float64)):
        vectors = gallery[rows[i]].astype(np.float64)
        # Sums along rows, not products of matrices: they don't depend on where a row stands.
        if metric == "euclidean":
            found[i] = np.sqrt(((vectors - query) ** 2).sum(axis=1))
            continue
        products = (vectors * query).sum(axis=1)
        if metric == "cosine":
            norms = np.sqrt((vectors**2).sum(axis=1) * (query**2).sum())
            found[i] = 1 - np.divide(products, norms, out=np.zeros(len(norms)), where=norms > 0)
        else:
            found[i] = -products
    return found


def _nearest(queries: np.ndarray, gallery: np.ndarray, count: int, metric: Metric) -> np.ndarray:
    """Return rows of the nearest, int64 ``(q, count)``, in no order; among ties at the last place, any."""
    asked = queries.astype(np.float64)
    rows, distances = np.empty((len(asked), 0), np.int64), np.empty((len(asked), 0))
    for start in range(0, len(gallery), TILE):
        tile = gallery[start : start + TILE].astype(np.float64)
        # In float64, as the difference of large numbers is small for near neighbours.
        found = -(asked @ tile.T)
        if metric == "euclidean":
            found = 2 * found + (tile**2).sum(axis=1)  # the query's own square changes no order
        distances = np.concatenate([distances, found], axis=1)
        numbers = np.broadcast_to(np.arange(start, start + len(tile)), found.shape)
        rows = np.concatenate([rows, numbers], axis=1)
        if rows.shape[1] > count:
            kept = np.argpartition(distances, count - 1, axis=1)[:, :count]
            distances, rows = np.take_along_axis(distances, kept, axis=1), np.take_along_axis(rows, kept, axis=1)
    return rows
