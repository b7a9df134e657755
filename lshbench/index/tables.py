"""Hash tables over subsets of a code's bits, as compact arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lshbench.errors import wrong_value
from lshbench.index.files import open_array, save_arrays
from lshbench.kernels import probes as kernels
from lshbench.types import Codes

SMALL = 12
"""Longest key whose tables have an entry for every possible key even if there are few items."""

LONGEST_KEY = 64
"""Most bits of a bucket key: one word."""

FILES = ("columns", "offsets", "keys", "begins", "directory", "ids")


def check_key_bits(key: str, value: object) -> None:
    """Check the length of a bucket key: ``auto``, or a number of bits.

    Args:
        key: the dotted configuration key, such as ``index.b``.
        value: what was given.

    Raises:
        UsageError: it is neither.
    """
    number = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LONGEST_KEY
    if value != "auto" and not number:
        raise wrong_value(key, value, f"auto, or a number from 1 to {LONGEST_KEY}")


def default_key_bits(items: int, limit: int) -> int:
    """Return the ``auto`` length of a bucket key: about log2(n) - 4, or 16 items a bucket if spread evenly."""
    return max(1, min(round(math.log2(max(items, 1))) - 4, limit, LONGEST_KEY))


def draw_subsets(bits: int, tables: int, size: int, seed: int) -> np.ndarray:
    """Return which bits each table reads, int32 ``(tables, size)``: the first ``size`` of a random permutation each.

    For one seed, shorter keys are prefixes of longer ones, so that a larger ``size`` only removes candidates, and fewer
    tables are the first of more.  Roy, Agarwal, Chakrabarti, De, Locality sensitive hashing in Fourier frequency
    domain for soft set containment search, NeurIPS 2023, in its published code.
    """
    generator = np.random.default_rng(seed)
    return np.stack([generator.permutation(bits)[:size] for _ in range(tables)]).astype(np.int32)


def consecutive_bits(tables: int, size: int) -> np.ndarray:
    """Return which bits each table reads, int32 ``(tables, size)``, no bit twice.

    Indyk, Motwani, Approximate nearest neighbors, STOC 1998: if bits are independent, so are tables.
    """
    return np.arange(tables * size, dtype=np.int32).reshape(tables, size)


@dataclass(frozen=True)
class BucketTables:
    """L tables, each with all n items in the order of their buckets, rows ascending within a bucket.

    Where there are at most about as many possible keys as items, every key has an entry; else each table has its
    distinct keys in order, with a directory over their first bits.  Either way an item takes a bounded number of bytes.

    Attributes:
        columns: int32 ``(L, s)``, the bits that make a table's key, most significant first.
        offsets: int32, where buckets start and where the last one stops, table after table.
        keys: uint64, distinct keys, table after table; empty where every key has an entry.
        begins: int64 ``(L + 1,)``, how many buckets the tables before have.
        directory: int32 ``(L, 2^d + 1)``, how many keys of a table have smaller first ``d`` bits; ``(L, 0)`` where
            every key has an entry.
        ids: int32 ``(L, n)``, gallery rows.
    """

    columns: np.ndarray
    offsets: np.ndarray
    keys: np.ndarray
    begins: np.ndarray
    directory: np.ndarray
    ids: np.ndarray

    @classmethod
    def empty(cls, columns: np.ndarray, items: int) -> BucketTables:
        """Return tables without items, in the layout for an expected number of items."""
        tables, size = columns.shape
        ids = np.empty((tables, 0), np.int32)
        if size <= max(SMALL, int(items).bit_length()):
            begins = np.arange(tables + 1, dtype=np.int64) << size
            offsets = np.zeros(tables * ((1 << size) + 1), np.int32)
            return cls(columns, offsets, np.empty(0, np.uint64), begins, np.empty((tables, 0), np.int32), ids)
        first = max(1, int(items).bit_length() - 1)
        directory = np.zeros((tables, (1 << first) + 1), np.int32)
        begins = np.zeros(tables + 1, np.int64)
        return cls(columns, np.zeros(tables, np.int32), np.empty(0, np.uint64), begins, directory, ids)

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def items(self) -> int:
        """How many items each table holds."""
        return self.ids.shape[1]

    @property
    def shift(self) -> int:
        """Bits of a key that the directory doesn't read; -1 where every key has an entry."""
        if not self.directory.shape[1]:
            return -1
        return self.columns.shape[1] - (self.directory.shape[1] - 1).bit_length() + 1

    def with_items(self, codes: Codes) -> BucketTables:
        """Return tables with further items added, whose rows follow the present ones."""
        total = self.items + len(codes)
        if total >= 1 << 31:
            raise ValueError(f"{total} items: tables hold fewer than {1 << 31}")
        packed = np.ascontiguousarray(codes.packed)
        if self.shift < 0:
            shape = (len(self), -1)
            offsets = np.empty_like(self.offsets)
            ids = np.empty((len(self), total), np.int32)
            old = (self.offsets.reshape(shape), self.ids)
            kernels.merge_dense(packed, self.columns, *old, offsets.reshape(shape), ids)
            return replace(self, offsets=offsets, ids=ids)
        parts = [self._merged(table, packed) for table in range(len(self))]
        tops = np.arange(self.directory.shape[1] - 1, dtype=np.uint64) << np.uint64(self.shift)
        buckets = np.cumsum([0] + [len(keys) for keys, _, _ in parts])
        first_keys = [np.append(np.searchsorted(keys, tops), len(keys)) for keys, _, _ in parts]
        return replace(
            self,
            keys=np.concatenate([keys for keys, _, _ in parts]),
            offsets=np.concatenate([offsets for _, offsets, _ in parts]),
            ids=np.stack([rows for _, _, rows in parts]),
            begins=buckets.astype(np.int64),
            directory=np.stack(first_keys).astype(np.int32),
        )

    def _merged(self, table: int, packed: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return distinct keys, offsets and ids of one table with further items."""
        begin, end = self.begins[table : table + 2]
        sizes = np.diff(self.offsets[begin + table : end + table + 1])
        new = np.empty(len(packed), np.uint64)
        kernels.fill_bucket_keys(packed, self.columns[table], new)
        keys = np.concatenate([np.repeat(self.keys[begin:end], sizes), new])
        rows = np.concatenate([self.ids[table], np.arange(self.items, self.items + len(new), dtype=np.int32)])
        # Old rows are smaller and stand first, so that a stable sort leaves them first within each bucket.
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])) if len(keys) else np.empty(0, np.int64)
        return keys[starts], np.append(starts, len(keys)).astype(np.int32), rows[order]

    def searched(self, used: int, probes: int) -> kernels.Tables:
        """Return the first ``used`` tables as kernels take them, and the probing sequence without projections."""
        buckets = kernels.Buckets(self.shift, self.offsets, self.keys, self.begins, self.directory)
        flips, owners = kernels.undirected_probes(probes, self.columns[:used])
        return kernels.Tables(self.columns, used, buckets, self.ids, flips, owners)

    def bytes(self, used: int) -> int:
        """Return how many bytes the first ``used`` tables take."""
        buckets = int(self.begins[used])
        keys = self.keys[:buckets].nbytes
        return (
            keys
            + sum(array[:used].nbytes for array in (self.columns, self.begins, self.directory, self.ids))
            + 4 * (buckets + used)
        )

    def save(self, folder: Path) -> list[str]:
        """Write the arrays; return the names of the files."""
        return save_arrays(folder, {f"{name}.npy": getattr(self, name) for name in FILES})

    @classmethod
    def open(cls, folder: Path) -> BucketTables:
        """Return saved tables as memory maps."""
        return cls(**{name: open_array(folder / f"{name}.npy") for name in FILES})
