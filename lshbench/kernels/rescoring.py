"""Compiled loops that take candidates' distances from one query, by cosine, Hamming distance or its projections.

Queries and gallery are the tuples of :mod:`lshbench.kernels.buckets`, which keeps compiled code on disk and has to
be touched after an edit here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange, types
from numba.extending import overload

from lshbench.kernels.compilation import kernel
from lshbench.kernels.words import popcount, prefetch

COSINE, HAMMING, EMBEDDING = 0, 1, 2
"""How candidates are rescored."""

AHEAD = 16
"""Candidates that are asked for from memory before their turn."""

SUMS = {"reassoc", "nsz", "contract"}
"""What the compiler may do to sums of products, so that it can vectorise them."""


@kernel
def unit(vector: np.ndarray, out: np.ndarray) -> bool:
    """Fill ``out`` float32 with a vector at length 1, or zeros for a zero vector; return whether it is finite."""
    total = 0.0
    for value in vector:
        total += np.float64(value) * np.float64(value)
    scale = 1 / np.sqrt(total) if total > 0 else 0.0
    for j in range(len(out)):
        out[j] = np.float32(vector[j] * scale)
    return np.isfinite(total)


def candidate_distance(query: np.ndarray, items: np.ndarray | tuple, row: np.uint64) -> np.float32:
    """Return a candidate's distance, by the kind of rescoring that a query of this type is for.

    Types decide while compiling, so that loops are written once and cost as much as one for each kind.  Functions as
    arguments would do that too, but what they are compiled into can't be kept on disk.
    """
    raise NotImplementedError


@overload(candidate_distance, jit_options={"fastmath": SUMS})
def _cosine_distance(query: Any, items: Any, row: Any) -> Any:
    def cosine(query: Any, items: Any, row: Any) -> Any:
        vectors, inverse_norms = items
        product = np.float32(0)
        for i in range(len(query)):
            product += query[i] * vectors[row, i]
        return np.float32(1) - min(max(product * inverse_norms[row], np.float32(-1)), np.float32(1))

    return cosine if query.ndim == 1 and isinstance(query.dtype, types.Float) else None


@overload(candidate_distance)
def _hamming_distance(query: Any, items: Any, row: Any) -> Any:
    def hamming(query: Any, items: Any, row: Any) -> Any:
        total = np.uint64(0)
        for word in range(len(query)):
            total += popcount(query[word] ^ items[row, word])
        return np.float32(total)

    return hamming if query.ndim == 1 and isinstance(query.dtype, types.Integer) else None


@overload(candidate_distance)
def _embedding_distance(query: Any, items: Any, row: Any) -> Any:
    def embedding(query: Any, items: Any, row: Any) -> Any:
        total = np.float32(0)
        for byte in range(len(query)):
            total += query[byte, items[row, byte]]
        return np.float32(1) - min(max(total, np.float32(-1)), np.float32(1))

    return embedding if query.ndim == 2 else None


def ask_for(items: np.ndarray | tuple, row: np.uint64) -> None:
    """Ask for the first line of memory that a candidate's distance reads; the processor asks for lines behind it."""
    raise NotImplementedError


@overload(ask_for, inline="always")
def _ask_for_vector(items: Any, row: Any) -> Any:
    def vector(items: Any, row: Any) -> Any:
        prefetch(items[0], row)
        prefetch(items[1], row)

    return vector if isinstance(items, types.BaseTuple) else None


@overload(ask_for, inline="always")
def _ask_for_code(items: Any, row: Any) -> Any:
    def code(items: Any, row: Any) -> Any:
        prefetch(items, row)

    return code if isinstance(items, types.Array) else None


@kernel
def _fill_sums(projections: np.ndarray, sums: np.ndarray) -> None:
    """Fill ``sums`` float32 ``(bytes, 256)``: what each value of a code's byte adds to the product with its signs.

    Scaled so that their total is the cosine of the projections and the signs.
    """
    total = 0.0
    for value in projections:
        total += np.float64(value) * np.float64(value)
    scale = 1 / np.sqrt(total * len(projections)) if total > 0 else 0.0
    for byte in range(len(sums)):
        all_clear = np.float32(0)
        for j in range(8 * byte, min(8 * byte + 8, len(projections))):
            all_clear -= np.float32(projections[j] * scale)
        sums[byte, 0] = all_clear
        for j in range(8):
            place = 8 * byte + 7 - j
            added = np.float32(2 * projections[place] * scale) if place < len(projections) else np.float32(0)
            half = 1 << j
            for value in range(half):
                sums[byte, half + value] = sums[byte, value] + added


@kernel
def prepare(
    kind: int, shortlist: int, queries: tuple, i: int, units: np.ndarray, words: np.ndarray, sums: np.ndarray
) -> bool:
    """Fill what rescoring reads of one query; return whether it is finite.

    Args:
        units: float32 ``(d,)``.
        words: uint64 ``(w,)``, zeros beyond the code's bytes.
        sums: float32 ``(bytes, 256)``.
    """
    codes, projections, vectors = queries
    if kind == HAMMING or shortlist:
        words.view(np.uint8)[: codes.shape[1]] = codes[i]
    if kind == EMBEDDING:
        _fill_sums(projections[i], sums)
    return unit(vectors[i], units) if kind == COSINE else True


@kernel
def fill(query: np.ndarray, items: np.ndarray | tuple, rows: np.ndarray, out: np.ndarray) -> None:
    """Fill ``out`` float32 with the distances of candidates."""
    for j in range(len(rows)):
        if j + AHEAD < len(rows):
            ask_for(items, np.uint64(rows[j + AHEAD]))
        out[j] = candidate_distance(query, items, np.uint64(rows[j]))


@kernel
def distances_of(
    kind: int,
    units: np.ndarray,
    words: np.ndarray,
    sums: np.ndarray,
    rows: np.ndarray,
    gallery: tuple,
    out: np.ndarray,
) -> None:
    """Fill ``out`` float32 with the distances of candidates.

    Args:
        words: uint64, the query's code.
    """
    if kind == COSINE:
        fill(units, (gallery[0], gallery[1]), rows, out)
    elif kind == HAMMING:
        fill(words, gallery[2], rows, out)
    else:
        fill(sums, gallery[3], rows, out)


@kernel(parallel=True)
def cosine_distances_together(units: np.ndarray, rows: np.ndarray, gallery: tuple, parts: int, out: np.ndarray) -> None:
    """Fill ``out`` with the distances of one query's many candidates, all threads at it."""
    for part in prange(parts):
        own = slice(part * len(rows) // parts, (part + 1) * len(rows) // parts)
        fill(units, (gallery[0], gallery[1]), rows[own], out[own])
