"""Codes as 64-bit words, and the kernels that take distances from them.

Words lie plane by plane, uint64 ``(words, n)``, so that one vector instruction takes the same word of several items.
Distances come four to a 64-bit lane: lane ``s`` (16 bits) of entry ``j`` belongs to item ``start + s * quarter + j``.
Counting bits in 64-bit elements and joining four counts by shifts needs no narrowing of vectors, which costs more than
the counts themselves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from lshbench.types import Codes

LANE = np.uint64(0xFFFF)


def code_words(codes: Codes) -> np.ndarray:
    """Return packed codes as uint64 ``(ceil(bits / 64), n)``; bits beyond the code's length are zero.

    One word a code that is already eight bytes wide is a view, anything else a copy as large as the codes.
    """
    width = codes.packed.shape[1]
    words = (width + 7) // 8
    spare = 8 * width - codes.bits
    padded = np.ascontiguousarray(codes.packed)
    if width % 8 or spare:
        padded = np.zeros((len(codes), 8 * words), np.uint8)
        padded[:, :width] = codes.packed
        if spare:
            padded[:, width - 1] &= np.uint8(0xFF << spare & 0xFF)
    # A count of differing bits doesn't depend on the order of bytes within a word.
    return np.ascontiguousarray(padded.view(np.uint64).reshape(len(codes), words).T)


@intrinsic
def popcount(typing_context: Any, word: Any) -> Any:
    """Count the set bits of a uint64: LLVM's ``ctpop``, an instruction wherever the processor has one."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@njit(cache=True)
def distance(query: np.ndarray, words: np.ndarray, item: int) -> int:
    """Return the Hamming distance of one query ``(words,)`` to one item."""
    total = np.uint64(0)
    for plane in range(words.shape[0]):
        total += popcount(query[plane] ^ words[plane, item])
    return np.int64(total)


@njit(cache=True, inline="always")
def _four(word: np.uint64, plane: np.ndarray, quarter: int, j: int) -> np.uint64:
    return (
        popcount(word ^ plane[j])
        | popcount(word ^ plane[quarter + j]) << np.uint64(16)
        | popcount(word ^ plane[2 * quarter + j]) << np.uint64(32)
        | popcount(word ^ plane[3 * quarter + j]) << np.uint64(48)
    )


@njit(cache=True)
def packed_distances(
    query: np.ndarray, words: np.ndarray, start: int, quarter: int, distances: np.ndarray
) -> None:
    """Fill ``distances`` uint64 ``(quarter,)`` with those of ``4 * quarter`` items from ``start``, four to an entry."""
    stop = start + 4 * quarter
    planes = words.shape[0]
    # The common lengths keep the sum in registers; longer codes go over the entries again, two words at a time.
    if planes == 1:
        a = query[0]
        first = words[0, start:stop]
        for j in range(quarter):
            distances[j] = _four(a, first, quarter, j)
    elif planes == 2:
        a, b = query[0], query[1]
        first, second = words[0, start:stop], words[1, start:stop]
        for j in range(quarter):
            distances[j] = _four(a, first, quarter, j) + _four(b, second, quarter, j)
    else:
        distances[:quarter] = np.uint64(0)
        for plane in range(0, planes - 1, 2):
            a, b = query[plane], query[plane + 1]
            first, second = words[plane, start:stop], words[plane + 1, start:stop]
            for j in range(quarter):
                distances[j] += _four(a, first, quarter, j) + _four(b, second, quarter, j)
        if planes % 2:
            a = query[planes - 1]
            first = words[planes - 1, start:stop]
            for j in range(quarter):
                distances[j] += _four(a, first, quarter, j)
