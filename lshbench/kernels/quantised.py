"""Kernels of :mod:`lshbench.ranking.quantised_scores`: a query's scores of codes, straight from their bytes.

Every code's score is added up in the same order, wherever the code lies: codes that are equal have equal scores.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from lshbench.kernels.compilation import kernel

WORD = 8
"""Bytes of a code that are loaded at once, and whose tables lie in the processor's first cache together."""

ROWS = 512
"""Codes that are looked up in these tables before the next ones: they stay in the first cache, too."""

SUMS = {"reassoc", "contract", "nsz"}
"""A sum's order is free, so that it can be vectorised: the same for every code."""

BYTE = np.uint64(0xFF)
LOW, SHIFT = np.int32(0xF), np.int32(4)
SIGN, MAGNITUDE = np.int32(0x8000), np.int32(0x7FFF)
UP, ACROSS = np.int32(16), np.int32(13)
HALF_UNIT = np.float32(2.0**112)
"""What exponents of float16 and float32 differ by: bits of the one moved to their places in the other are so much too
small."""


@kernel
def _word(code: np.ndarray, first: int) -> np.uint64:
    """Return eight bytes of a code as one number, which the compiler makes one load of."""
    low = (
        np.uint64(code[first])
        | np.uint64(code[first + 1]) << np.uint64(8)
        | np.uint64(code[first + 2]) << np.uint64(16)
        | np.uint64(code[first + 3]) << np.uint64(24)
    )
    high = (
        np.uint64(code[first + 4]) << np.uint64(32)
        | np.uint64(code[first + 5]) << np.uint64(40)
        | np.uint64(code[first + 6]) << np.uint64(48)
        | np.uint64(code[first + 7]) << np.uint64(56)
    )
    return low | high


@kernel
def _looked_up(word: np.uint64, tables: np.ndarray) -> np.float32:
    """Return the sum of what eight bytes add, by their tables ``(8, 256)``."""
    first = tables[0, word & BYTE] + tables[1, (word >> np.uint64(8)) & BYTE]
    second = tables[2, (word >> np.uint64(16)) & BYTE] + tables[3, (word >> np.uint64(24)) & BYTE]
    third = tables[4, (word >> np.uint64(32)) & BYTE] + tables[5, (word >> np.uint64(40)) & BYTE]
    fourth = tables[6, (word >> np.uint64(48)) & BYTE] + tables[7, word >> np.uint64(56)]
    return (first + second) + (third + fourth)


@kernel(parallel=True)
def add_looked_up(stored: np.ndarray, first: int, tables: np.ndarray, parts: int, scores: np.ndarray) -> None:
    """Add what some bytes of codes add to a query's scores.

    Args:
        stored: uint8 ``(n, bytes)``.
        first: the first of these bytes.
        tables: float32 ``(b, 256)``, of ``b`` bytes from there on.
        parts: of the codes, for threads.
        scores: float32 ``(n,)``.
    """
    columns = len(tables)
    words = columns // WORD * WORD
    for part in prange(parts):
        begin, end = len(stored) * part // parts, len(stored) * (part + 1) // parts
        for start in range(begin, end, ROWS):
            stop = min(start + ROWS, end)
            for column in range(0, words, WORD):
                own = tables[column : column + WORD]
                for row in range(start, stop):
                    scores[row] += _looked_up(_word(stored[row], first + column), own)
            for column in range(words, columns):
                for row in range(start, stop):
                    scores[row] += tables[column, stored[row, first + column]]


@kernel(fastmath=SUMS)
def _sum_of_levels(code: np.ndarray, weights: np.ndarray, squares: np.ndarray) -> np.float32:
    total = np.float32(0)
    for column in range(len(code)):
        level = np.float32(code[column])
        total += level * (weights[column] + level * squares[column])
    return total


@kernel(fastmath=SUMS)
def _sum_of_half_levels(code: np.ndarray, weights: np.ndarray, squares: np.ndarray) -> np.float32:
    total = np.float32(0)
    for column in range(len(code)):
        byte = np.int32(code[column])
        low, high = np.float32(byte & LOW), np.float32(byte >> SHIFT)
        total += low * (weights[0, column] + low * squares[0, column])
        total += high * (weights[1, column] + high * squares[1, column])
    return total


@kernel(parallel=True)
def add_levels(stored: np.ndarray, weights: np.ndarray, squares: np.ndarray, parts: int, scores: np.ndarray) -> None:
    """Add ``v * (weight + v * square)`` of every byte ``v`` of codes to a query's scores.

    Args:
        stored: uint8 ``(n, bytes)``.
        weights, squares: float32 ``(1, bytes)``.
        parts: of the codes, for threads.
        scores: float32 ``(n,)``.
    """
    for part in prange(parts):
        for row in range(len(stored) * part // parts, len(stored) * (part + 1) // parts):
            scores[row] += _sum_of_levels(stored[row], weights[0], squares[0])


@kernel(parallel=True)
def add_half_levels(
    stored: np.ndarray, weights: np.ndarray, squares: np.ndarray, parts: int, scores: np.ndarray
) -> None:
    """Do as :func:`add_levels` with the low and the high half of every byte; weights and squares are ``(2, bytes)``."""
    for part in prange(parts):
        for row in range(len(stored) * part // parts, len(stored) * (part + 1) // parts):
            scores[row] += _sum_of_half_levels(stored[row], weights, squares)


@kernel(fastmath=SUMS)
def _product_with_half_precision(
    halves: np.ndarray, query: np.ndarray, bits: np.ndarray, values: np.ndarray
) -> np.float32:
    """Return the product of a query with float16 numbers, given as uint16; ``bits`` and ``values`` share memory."""
    for j in range(len(query)):
        half = np.int32(halves[j])
        bits[j] = ((half & SIGN) << UP) | ((half & MAGNITUDE) << ACROSS)
    total = np.float32(0)
    for j in range(len(query)):
        total += values[j] * query[j]
    return total * HALF_UNIT


@kernel(parallel=True)
def add_half_precision(halves: np.ndarray, query: np.ndarray, parts: int, scores: np.ndarray) -> None:
    """Add products with finite float16 numbers to a query's scores.

    Args:
        halves: their bits, uint16 ``(n, d)``.
        query: float32 ``(d,)``.
        parts: of the codes, for threads.
        scores: float32 ``(n,)``.
    """
    for part in prange(parts):
        bits = np.empty(len(query), np.int32)
        values = bits.view(np.float32)
        for row in range(len(halves) * part // parts, len(halves) * (part + 1) // parts):
            scores[row] += _product_with_half_precision(halves[row], query, bits, values)


@kernel(parallel=True)
def share_scores(
    scores: np.ndarray,
    first: int,
    kinds: np.ndarray,
    before: int,
    rows: np.ndarray,
    kind: np.ndarray,
    kept: np.ndarray,
) -> None:
    """Give items of a tile that are stored as an earlier one is the score of that one; tiles come in their order.

    Args:
        scores: of the tile, float32 ``(q, tile)``.
        first: the tile's first row.
        kinds: rows of the tile that others are stored like, int64 ``(m,)``.
        before: how many such rows the tiles before have.
        rows: of the tile's items that are stored as an earlier one is, int64 ``(r,)``.
        kind: which of all such rows each of these is stored like, int64 ``(r,)``.
        kept: scores of all such rows, float32 ``(q, kinds)``, filled tile by tile.
    """
    for query in prange(len(scores)):
        for j in range(len(kinds)):
            kept[query, before + j] = scores[query, kinds[j] - first]
        for j in range(len(rows)):
            scores[query, rows[j] - first] = kept[query, kind[j]]
