"""Compiled loops of :func:`lshbench.ranking.cosine.cosine_neighbors`."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from lshbench.kernels.cosine import similarity_of
from lshbench.kernels.keys import LOW, THIRTY_TWO, descending_key, key_value
from lshbench.kernels.words import PARALLEL


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
            value = similarity_of(products[j], norms[j])
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
