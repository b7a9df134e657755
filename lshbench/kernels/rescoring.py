"""Kernels that take candidates' distances from one query: by cosine, by Hamming distance, or by its projections."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import prange, types
from numba.extending import overload

from lshbench.kernels.compilation import kernel
from lshbench.kernels.frames import (
    Float32Matrix,
    Float32Vector,
    Int32Vector,
    UInt8Matrix,
    UInt64Matrix,
    UInt64Vector,
)
from lshbench.kernels.topk import room_for
from lshbench.kernels.words import popcount, prefetch

COSINE, HAMMING, EMBEDDING = 0, 1, 2
"""How candidates are rescored."""

AHEAD = 16
"""How many candidates ahead memory is prefetched."""

SUMS = {"reassoc", "nsz", "contract"}
"""What the compiler may do to sums of products, so that it can vectorise them."""


class Queries(NamedTuple):
    """Queries; what a kind of rescoring doesn't read has no columns.

    Attributes:
        codes: ``(q, bytes)``.
        projections: ``(q, bits)``.
        vectors: ``(q, d)``.
    """

    codes: UInt8Matrix
    projections: Float32Matrix
    vectors: Float32Matrix


class Gallery(NamedTuple):
    """Gallery items; what a kind of rescoring doesn't read is empty.

    Attributes:
        vectors: ``(n, d)``.
        inverse_norms: ``(n,)``, of the vectors.
        words: ``(n, w)``, the codes.
        code_bytes: ``(n, 8 w)``, the same memory.
        ordered_words: ``(w, n)``, the codes in the order of the first table where that is the only one: its buckets are
            then runs of memory.
    """

    vectors: Float32Matrix
    inverse_norms: Float32Vector
    words: UInt64Matrix
    code_bytes: UInt8Matrix
    ordered_words: UInt64Matrix


class Scratch(NamedTuple):
    """Working space of one thread, for queries one after the other.

    Attributes:
        seen, found: as :func:`lshbench.kernels.probes.gather` takes them.
        distances: ``(n,)``, of candidates.
        room: of a collection (:mod:`lshbench.kernels.topk`).
        unit: ``(d,)``, the query's vector at length 1.
        words: ``(w,)``, the query's code; zeros beyond its bytes.
        sums: ``(bytes, 256)``, what each value of a code's byte adds to the cosine of projections and signs.
    """

    seen: UInt64Vector
    found: Int32Vector
    distances: Float32Vector
    room: UInt64Vector
    unit: Float32Vector
    words: UInt64Vector
    sums: Float32Matrix


@kernel
def make_scratch(kind: int, items: int, k: int, dimensions: int, width: int) -> Scratch:
    """Return working space for collections of ``k``; pages of it that are never written cost nothing."""
    return Scratch(
        np.zeros((items + 63) // 64, np.uint64),
        np.empty(2 * items + 2, np.int32),
        np.empty(items, np.float32),
        np.empty(room_for(k), np.uint64),
        np.empty(dimensions if kind == COSINE else 0, np.float32),
        np.zeros((width + 7) // 8, np.uint64),
        np.empty((width if kind == EMBEDDING else 0, 256), np.float32),
    )


@kernel
def _scale_to_unit(vector: np.ndarray, out: np.ndarray) -> bool:
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


def prefetch_item(items: np.ndarray | tuple, row: np.uint64) -> None:
    """Prefetch the first line of memory that a candidate's distance reads; the processor prefetches those behind it."""
    raise NotImplementedError


@overload(prefetch_item, inline="always")
def _prefetch_vector(items: Any, row: Any) -> Any:
    def vector(items: Any, row: Any) -> Any:
        prefetch(items[0], row)
        prefetch(items[1], row)

    return vector if isinstance(items, types.BaseTuple) else None


@overload(prefetch_item, inline="always")
def _prefetch_code(items: Any, row: Any) -> Any:
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
def prepare(kind: int, shortlist: int, queries: Queries, i: int, scratch: Scratch) -> bool:
    """Fill what rescoring reads of one query (unit, words or sums); return whether it is finite."""
    if kind == HAMMING or shortlist:
        scratch.words.view(np.uint8)[: queries.codes.shape[1]] = queries.codes[i]
    if kind == EMBEDDING:
        _fill_sums(queries.projections[i], scratch.sums)
    return _scale_to_unit(queries.vectors[i], scratch.unit) if kind == COSINE else True


@kernel
def fill(query: np.ndarray, items: np.ndarray | tuple, rows: np.ndarray, out: np.ndarray) -> None:
    """Fill ``out`` float32 with the distances of candidates."""
    for j in range(len(rows)):
        if j + AHEAD < len(rows):
            prefetch_item(items, np.uint64(rows[j + AHEAD]))
        out[j] = candidate_distance(query, items, np.uint64(rows[j]))


@kernel
def distances_of(kind: int, scratch: Scratch, rows: np.ndarray, gallery: Gallery, out: np.ndarray) -> None:
    """Fill ``out`` float32 with the distances of candidates from the query that is prepared."""
    if kind == COSINE:
        fill(scratch.unit, (gallery.vectors, gallery.inverse_norms), rows, out)
    elif kind == HAMMING:
        fill(scratch.words, gallery.words, rows, out)
    else:
        fill(scratch.sums, gallery.code_bytes, rows, out)


@kernel(parallel=True)
def cosine_distances_parallel(
    unit: np.ndarray, rows: np.ndarray, vectors: np.ndarray, inverse_norms: np.ndarray, parts: int, out: np.ndarray
) -> None:
    """Fill ``out`` with the distances of one query's many candidates, with all threads."""
    for part in prange(parts):
        own = slice(part * len(rows) // parts, (part + 1) * len(rows) // parts)
        fill(unit, (vectors, inverse_norms), rows[own], out[own])
