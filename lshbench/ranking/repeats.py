"""Which items a quantiser stores alike, found without a copy of what is stored."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xxhash

KEY = 16
"""Bytes of what rows are told apart by: of 128 bits, no two different rows of a billion share theirs but by a chance of
one in 10**20."""

BLOCK_ROWS = 512
"""Rows that are hashed at a time: each becomes an object of its own meanwhile."""


class Repeats(NamedTuple):
    """Items that are stored as an earlier one is.

    Attributes:
        rows: of these items, ascending, int64 ``(r,)``.
        kinds: rows of the first of each kind that has several, ascending, int64 ``(m,)``.
        kind: which of these each of ``rows`` is stored like, int64 ``(r,)``.
    """

    rows: np.ndarray
    kinds: np.ndarray
    kind: np.ndarray

    @classmethod
    def of(cls, stored: np.ndarray) -> Repeats:
        """Return them for what is stored, uint8 ``(n, bytes)``."""
        keys = _keys(stored)
        several = _shared(keys[:, 0])  # in most galleries few rows, so that the rest of the work is short
        keys = keys[several]
        order = np.lexsort((keys[:, 0], keys[:, 1]))  # stable: of equal keys, the smallest row comes first
        sorted_keys = keys[order]
        begins = np.ones(len(order), np.bool_)
        begins[1:] = (sorted_keys[1:, 0] != sorted_keys[:-1, 0]) | (sorted_keys[1:, 1] != sorted_keys[:-1, 1])
        first = np.empty(len(order), np.int64)
        first[order] = order[np.flatnonzero(begins)][np.cumsum(begins) - 1]
        later = np.flatnonzero(first != np.arange(len(first)))
        return cls(several[later], *np.unique(several[first[later]], return_inverse=True))


def _shared(words: np.ndarray) -> np.ndarray:
    """Return the rows, ascending, whose word another row has, too."""
    order = np.argsort(words)
    equal = words[order[1:]] == words[order[:-1]]
    found = np.zeros(len(words), np.bool_)
    found[order[1:][equal]] = found[order[:-1][equal]] = True
    return np.flatnonzero(found)


def _keys(stored: np.ndarray) -> np.ndarray:
    """Return a key of each row, uint64 ``(n, 2)``: its bytes where they are few, else their hash."""
    count, width = stored.shape
    keys = np.zeros((count, KEY), np.uint8)
    if width <= KEY:
        keys[:, :width] = stored
    else:
        for start in range(0, count, BLOCK_ROWS):
            block = np.ascontiguousarray(stored[start : start + BLOCK_ROWS]).view(f"V{width}")[:, 0]
            hashed = b"".join(map(xxhash.xxh3_128_digest, block.tolist()))
            keys[start : start + BLOCK_ROWS] = np.frombuffer(hashed, np.uint8).reshape(-1, KEY)
    return keys.view(np.uint64)
