"""Kernels that find the nearest k by cosine (:func:`lshbench.ranking.cosine.cosine_neighbors`)."""

from __future__ import annotations

import numpy as np
from numba import prange

from lshbench.kernels.compilation import kernel
from lshbench.kernels.cosine import similarity_of
from lshbench.kernels.keys import descending, descending_value, order_of, row_of, sort_key
from lshbench.kernels.topk import NO_LIMIT, collect, smallest


@kernel(parallel=True)
def collect_tile(
    similarities: np.ndarray,
    inverse_norms: np.ndarray,
    first: int,
    k: int,
    rooms: np.ndarray,
    counts: np.ndarray,
    limits: np.ndarray,
) -> None:
    """Collect each query's ``k`` most similar of a tile's items, whose first row is given, and those of tiles before.

    Args:
        rooms, counts, limits: a collection (:mod:`lshbench.kernels.topk`) a query.
    """
    size = min(similarities.shape[1], len(inverse_norms) - first)
    norms = inverse_norms[first : first + size]
    for i in prange(len(counts)):
        room, count, limit = rooms[i], counts[i], limits[i]
        # Rows ascend: a later one has to be more similar than the k-th.
        least = np.float32(-np.inf) if limit == NO_LIMIT else descending_value(order_of(limit))
        products = similarities[i, :size]
        for j in range(size):
            value = similarity_of(products[j], norms[j])
            if value > least:
                count, nearer = collect(sort_key(descending(value), first + j), room, count, limit, k)
                if nearer < limit:
                    limit = nearer
                    least = descending_value(order_of(limit))
        counts[i], limits[i] = count, limit


@kernel(parallel=True)
def write_nearest(rooms: np.ndarray, counts: np.ndarray, k: int, ids: np.ndarray, distances: np.ndarray) -> None:
    """Write each query's ``k`` most similar items in order; there are at least k."""
    for i in prange(len(counts)):
        found = smallest(rooms[i], counts[i], k)
        for column in range(k):
            ids[i, column] = row_of(found[column])
            distances[i, column] = np.float32(1) - descending_value(order_of(found[column]))
