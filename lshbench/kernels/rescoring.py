"""Kernels that rescore queries' candidates: by cosine, by Hamming distance, or by the queries' projections."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import prange, types
from numba.extending import overload

from lshbench.kernels.asymmetric_sums import fill_entries, unit_of
from lshbench.kernels.compilation import kernel
from lshbench.kernels.frames import Float32Matrix, Float32Vector, Int32Vector, UInt8Matrix, UInt64Matrix, UInt64Vector
from lshbench.kernels.threads import own_part, threaded_kernel
from lshbench.kernels.topk import room_for
from lshbench.kernels.words import popcount, prefetch

COSINE, HAMMING, EMBEDDING, ASYMMETRIC = 0, 1, 2, 3
"""Kinds of rescoring; the last two order candidates alike, by the cosine of projections and code, or by the projections
of the bits that differ."""

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
    sums: Float32Matrix  # (bytes, 256), lookup table of `_fill_sums` or `_fill_whole_sums`
    step: Float32Vector  # (1,), the unit of asymmetric distances


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
        np.empty((width if kind in (EMBEDDING, ASYMMETRIC) else 0, 256), np.float32),
        np.ones(1, np.float32),
    )


@kernel
def scale_to_unit(vector: np.ndarray, out: np.ndarray) -> bool:
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


def _is_vector_of(query: Any, kind: type) -> bool:
    return isinstance(query, types.Array) and query.ndim == 1 and isinstance(query.dtype, kind)


@overload(candidate_distance, jit_options={"fastmath": SUMS})
def _cosine_distance(query: Any, items: Any, row: Any) -> Any:
    def cosine(query: Any, items: Any, row: Any) -> Any:
        vectors, inverse_norms = items
        product = np.float32(0)
        for i in range(len(query)):
            product += query[i] * vectors[row, i]
        return np.float32(1) - min(max(product * inverse_norms[row], np.float32(-1)), np.float32(1))

    return cosine if _is_vector_of(query, types.Float) else None


@overload(candidate_distance)
def _hamming_distance(query: Any, items: Any, row: Any) -> Any:
    def hamming(query: Any, items: Any, row: Any) -> Any:
        total = np.uint64(0)
        for word in range(len(query)):
            total += popcount(query[word] ^ items[row, word])
        return np.float32(total)

    return hamming if _is_vector_of(query, types.Integer) else None


@overload(candidate_distance)
def _embedding_distance(query: Any, items: Any, row: Any) -> Any:
    def embedding(query: Any, items: Any, row: Any) -> Any:
        total = np.float32(0)
        for byte in range(len(query)):
            total += query[byte, items[row, byte]]
        return np.float32(1) - min(max(total, np.float32(-1)), np.float32(1))

    return embedding if isinstance(query, types.Array) and query.ndim == 2 else None


@overload(candidate_distance)
def _asymmetric_distance(query: Any, items: Any, row: Any) -> Any:
    def asymmetric(query: Any, items: Any, row: Any) -> Any:
        sums, step = query
        total = np.float32(0)
        for byte in range(len(sums)):
            total += sums[byte, items[row, byte]]
        return total * step[0]

    return asymmetric if isinstance(query, types.BaseTuple) else None


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
def _fill_whole_sums(projections: np.ndarray, sums: np.ndarray) -> float:
    """Fill the lookup table ``sums`` with what each value of a code's byte adds to the asymmetric distance.

    Returns:
        The unit of the distance (:mod:`lshbench.kernels.asymmetric_sums`); NaN if a projection isn't finite.
    """
    unit = unit_of(projections)
    whole = np.empty(256, np.uint32)
    if np.isfinite(unit):
        for byte in range(len(sums)):
            fill_entries(projections, unit, 8 * byte, 8, whole)
            for value in range(256):
                sums[byte, value] = np.float32(whole[value])
    return unit


@kernel
def _fill_words(code: np.ndarray, words: np.ndarray) -> None:
    """Fill ``words`` uint64 with a code's bytes, the first one lowest; zeros beyond them."""
    words[:] = 0
    for byte in range(len(code)):
        words[byte >> 3] |= np.uint64(code[byte]) << np.uint64(8 * (byte & 7))


@kernel
def prepare(kind: int, shortlist: int, queries: Queries, i: int, scratch: Scratch) -> bool:
    """Fill the scratch memory that rescoring reads of one query (unit, words, sums); return whether it is finite."""
    if kind == HAMMING or shortlist:
        _fill_words(queries.codes[i], scratch.words)
    if kind == EMBEDDING:
        _fill_sums(queries.projections[i], scratch.sums)
    if kind == ASYMMETRIC:
        scratch.step[0] = _fill_whole_sums(queries.projections[i], scratch.sums)
        return bool(np.isfinite(scratch.step[0]))
    return scale_to_unit(queries.vectors[i], scratch.unit) if kind == COSINE else True


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
    elif kind == EMBEDDING:
        fill(scratch.sums, gallery.code_bytes, rows, out)
    else:
        fill((scratch.sums, scratch.step), gallery.code_bytes, rows, out)


@kernel(parallel=True)
def cosine_distances_parallel(
    unit: np.ndarray, rows: np.ndarray, vectors: np.ndarray, inverse_norms: np.ndarray, parts: int, out: np.ndarray
) -> None:
    """Fill ``out`` with the cosine distances of one query's many candidates, on all threads."""
    for part in prange(parts):
        own = slice(part * len(rows) // parts, (part + 1) * len(rows) // parts)
        fill(unit, (vectors, inverse_norms), rows[own], out[own])


@kernel
def cosine_distances_of_lists(
    queries: np.ndarray, offsets: np.ndarray, rows: np.ndarray, vectors: np.ndarray, norms: np.ndarray, out: np.ndarray
) -> None:
    """Fill ``out`` float32 with the cosine distances of each query's candidates.

    Args:
        queries: float32 ``(q, d)``.
        offsets: int64 ``(q + 1,)``, where each query's begin in ``rows`` int32 and ``out``.
    """
    unit = np.empty(queries.shape[1], np.float32)
    for i in range(len(queries)):
        scale_to_unit(queries[i], unit)
        own = slice(offsets[i], offsets[i + 1])
        fill(unit, (vectors, norms), rows[own], out[own])


@threaded_kernel
def cosine_distances_of_lists_parallel(
    part: int,
    parts: int,
    queries: np.ndarray,
    offsets: np.ndarray,
    rows: np.ndarray,
    vectors: np.ndarray,
    inverse_norms: np.ndarray,
    out: np.ndarray,
) -> None:
    """Fill ``out`` like :func:`cosine_distances_of_lists`, on all threads."""
    own = own_part(len(queries), part, parts)
    asked, begins = queries[own.start : own.stop], offsets[own.start : own.stop + 1]
    cosine_distances_of_lists(asked, begins, rows, vectors, inverse_norms, out)
