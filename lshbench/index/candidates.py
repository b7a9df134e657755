"""Arrays in the layout that kernels are compiled for, and the order in which to search queries."""

from __future__ import annotations

import ctypes

import numpy as np

from lshbench.kernels.words import code_words
from lshbench.types import Codes

BLOCK_CANDIDATES = 1 << 22
"""Candidates whose distances are held at a time for complete rankings: some 100 MB."""

TOGETHER = 1 << 18
"""Multiplications (about 50 microseconds) from which comparing one query's candidates on all threads pays off."""

SORTED_QUERIES = 64
"""Batch size from which queries are searched in the order of their codes."""


def search_order(packed: np.ndarray) -> np.ndarray:
    """Return the order in which to search queries, int64 ``(q,)``: by the code's first bits in a large batch.

    Consecutive queries then share candidates, which are still in the processor's cache.
    """
    if len(packed) < SORTED_QUERIES:
        return np.arange(len(packed))
    first = np.zeros((len(packed), 8), np.uint8)
    width = min(8, packed.shape[1])
    first[:, :width] = packed[:, :width]
    return np.argsort(first.view(">u8")[:, 0], kind="stable")


def row_words(codes: Codes) -> np.ndarray:
    """Return packed codes as uint64 ``(n, ceil(bits / 64))``, an item a row; bits beyond the code's length are zero."""
    if codes.bits % 64 == 0 and codes.packed.flags.c_contiguous and codes.packed.flags.writeable:
        return codes.packed.view(np.uint64)
    return np.ascontiguousarray(code_words(codes).T)


def plain_rows(array: np.ndarray) -> np.ndarray:
    """Return an array as writable and in C order, copied only if it is not."""
    if array.flags.carray:
        return array
    array = np.ascontiguousarray(array)
    return array if array.flags.writeable else array.copy()


def writable_view(array: np.ndarray) -> np.ndarray:
    """Return a view of an array that is flagged writable, for kernels that only read it.

    Read-only arrays, such as memory maps, are another type to numba, which would compile the kernels once more.  The
    caller has to keep the array alive.
    """
    array = np.ascontiguousarray(array)
    if array.flags.writeable or not array.size:
        return np.asarray(array)
    memory = (ctypes.c_byte * array.nbytes).from_address(array.ctypes.data)
    return np.ndarray(array.shape, array.dtype, memoryview(memory))
