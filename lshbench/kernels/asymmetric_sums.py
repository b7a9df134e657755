"""Asymmetric distances of packed binary codes, added up from a query's look-up tables.

The asymmetric distance of a code is the sum of the magnitudes of the query's projections over the bits in which the two
differ.  Projections are rounded to whole numbers, in a unit of each query's own, whose magnitudes add up to less than
2^24: sums are exact in whichever order, so that equal codes tie exactly.  A table has what each value of each half byte
of a code adds.  An entry has the sums of eight or sixteen queries side by side, so that one look-up serves all.

Codes are uint8 ``(n, bytes)`` as :class:`lshbench.types.Codes` packs them.
"""

from __future__ import annotations

import numpy as np

from lshbench.kernels.compilation import kernel
from lshbench.kernels.lanes import EIGHT, sum_eight, sum_sixteen

EXACT = float(1 << 24)
"""Bound of a query's distances in its unit: whole numbers up to this one are exact in float32."""

ALIGNED = 64
"""Bytes at a multiple of which tables begin, so that no entry lies in two lines of the cache."""


@kernel
def unit_of(projections: np.ndarray) -> float:
    """Return the unit of a query's distances, a power of two; NaN if a projection isn't finite."""
    total = 0.0
    for value in projections:
        total += abs(np.float64(value))
    if not np.isfinite(total):
        return np.nan
    # Powers of two: small projections lose nothing by them.  Rounding may add half to every magnitude.
    return np.exp2(-np.floor(np.log2((EXACT - len(projections)) / total))) if total > 0 else 1.0


@kernel
def fill_entries(projections: np.ndarray, unit: float, first: int, bits: int, sums: np.ndarray) -> None:
    """Fill ``sums`` uint32 ``(2^bits,)`` with what each value of some bits of a code, from ``first`` on, adds."""
    none = np.uint32(0)
    for value in projections[first : first + bits]:
        if value >= 0:
            none += np.uint32(np.rint(np.float64(value) / unit))
    sums[0] = none
    for j in range(bits):
        # Unsigned numbers wrap around: adding a negative difference subtracts.
        added = np.uint32(0)
        place = first + bits - 1 - j
        if place < len(projections):
            added = np.uint32(np.rint(abs(np.float64(projections[place])) / unit))
            if projections[place] >= 0:
                added = np.uint32(0) - added
        half = 1 << j
        for value in range(half):
            sums[half + value] = sums[value] + added


@kernel
def make_table(width: int, queries: int) -> np.ndarray:
    """Return memory for the table of eight or sixteen queries and codes of so many bytes."""
    size = 2 * width * 16 * queries
    room = np.empty(size + ALIGNED // 4, np.uint32)
    skipped = -(room.ctypes.data // 4) % (ALIGNED // 4)
    return room[skipped : skipped + size].reshape((2 * width, 16, queries))


@kernel
def fill_table(projections: np.ndarray, units: np.ndarray, table: np.ndarray) -> None:
    """Fill a table for up to as many queries as it has room for, and their units.

    Of a query that isn't finite, and of none, entries are zeros.
    """
    sums = np.empty(16, np.uint32)
    table[:] = 0
    for i in range(len(projections)):
        units[i] = unit_of(projections[i])
        if np.isnan(units[i]):
            continue
        for half in range(len(table)):
            if 4 * half < len(projections[i]):
                fill_entries(projections[i], units[i], 4 * half, 4, sums)
                for value in range(16):
                    table[half, value, i] = sums[value]


@kernel
def fill_sums(table: np.ndarray, codes: np.ndarray, start: int, stop: int, sums: np.ndarray) -> None:
    """Fill ``sums`` uint32 ``(queries, m)`` with the distances of codes ``start`` to ``stop`` to a table's queries."""
    queries = table.shape[2]
    if stop - start < EIGHT:
        for row in range(start, stop):
            for i in range(queries):
                total = np.uint32(0)
                for byte in range(codes.shape[1]):
                    total += table[2 * byte, codes[row, byte] >> 4, i] + table[2 * byte + 1, codes[row, byte] & 15, i]
                sums[i, row - start] = total
        return
    for row in range(start, stop, EIGHT):
        first = min(row, stop - EIGHT)  # the last ones are taken again
        if queries == EIGHT:
            sum_eight(table, codes, first, sums, first - start)
        else:
            sum_sixteen(table, codes, first, sums, first - start)
