"""Kernels that rescore a query's candidates: by cosine, by Hamming distance, or by the query's projections."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import prange, types
from numba.extending import overload

from lshbench.kernels.compilation import kernel
from lshbench.kernels.frames import Float32Matrix, Float32Vector, Int32Vector, UInt8Matrix, UInt64Matrix, UInt64Vector
from lshbench.kernels.topk import room_for
from lshbench.kernels.words import popcount, prefetch

COSINE, HAMMING, EMBEDDING = 0, 1, 2
"""Kinds of rescoring."""

AHEAD = 16
"""How many candidates ahead memory is prefetched."""

SUMS = {"reassoc", "nsz", "contract"}
"""Fast-math flags for sums of products, without which the compiler can't vectorise them."""


class Queries(NamedTuple):
    """Queries; what a kind of rescoring doesn't read has no columns."""

    codes: UInt8Matrix  # (q, bytes)
    projections: Float32Matrix  # (q, bits)
    vectors: Float32Matrix  # (q, d)


class Gallery(NamedTuple):
    """Gallery items; what a kind of rescoring doesn't read is empty."""

    vectors: Float32Matrix  # (n, d)
    inverse_norms: Float32Vector  # (n,), of the vectors
    words: UInt64Matrix  # (n, w), the codes
    code_bytes: UInt8Matrix  # (n, 8 w), the same memory
    # (w, n), the codes in the order of the first table, whose buckets are then contiguous: for Hamming distance and one
    # table in use
    ordered_words: UInt64Matrix


class Scratch(NamedTuple):
    """Scratch memory of one thread, used for one query after the other."""

    seen: UInt64Vector  # these two as `lshbench.kernels.probes.gather` takes them
    found: Int32Vector
    distances: Float32Vector  # (n,), of candidates
    room: UInt64Vector  # the buffer of a collection (`lshbench.kernels.topk`)
    unit: Float32Vector  # (d,), the query's vector at length 1
    words: UInt64Vector  # (w,), the query's code; zeros beyond its bytes
    sums: Float32Matrix  # (bytes, 256), lookup table of `_fill_sums`


@kernel
def make_scratch(kind: int, items: int, k: int, dimensions: int, width: int) -> Scratch:
    """Return scratch memory for collections of ``k`` keys; pages of it that are never written cost nothing."""
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
    """Return a candidate's distance, by the kind of rescoring that the arguments' types stand for.

    Types are known at compile time, so that loops are written once and are as fast as one for each kind.  Passing
    functions as arguments would do that too, but numba can't cache what it compiles for them.
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
    """Prefetch the first cache line that a candidate's distance reads; the processor prefetches the next ones."""
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
    """Fill the lookup table ``sums`` float32 ``(bytes, 256)``: what each value of a code's byte adds to the similarity.

    Entries are scaled so that those of a code's bytes add up to the cosine of the projections and its signs.
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
    """Fill the scratch memory that rescoring reads of one query (unit, words, sums); return whether it is finite."""
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
    """Fill ``out`` float32 with the distances of candidates from the query last prepared."""
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
    """Fill ``out`` with the cosine distances of one query's many candidates, on all threads."""
    for part in prange(parts):
        own = slice(part * len(rows) // parts, (part + 1) * len(rows) // parts)
        fill(unit, (vectors, inverse_norms), rows[own], out[own])
