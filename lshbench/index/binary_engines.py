"""faiss's own indexes over codes: two kinds of hash tables and inverted lists, all by Hamming distance.

What they have in common is in :mod:`lshbench.index.engines`.  faiss reads a code's bits in order, so that its tables
are those that ``index=buckets index.draw=disjoint`` makes of the same code.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar

import faiss
import numpy as np

from lshbench.errors import wrong_value
from lshbench.index.engines import REVERSED, CandidateEngine, spread
from lshbench.types import CodeKind, Encoded

LONGEST_KEY = 64
"""Bits of a bucket number: one word."""


class BinaryEngine(CandidateEngine):
    """A faiss index over a method's codes, which compares whole codes of those items that a query visits."""

    distance = "hamming"
    takes = frozenset({"binary"})

    @abstractmethod
    def _empty(self, bits: int, packed: np.ndarray) -> Any:
        """Return the faiss index, trained and without items, for codes of so many bits."""

    def _make(self, gallery: Encoded) -> Any:
        packed = self._asked(gallery)
        engine = self._empty(gallery.binary.bits, packed)
        engine.add(packed)
        return engine

    def _asked(self, queries: Encoded) -> np.ndarray:
        return REVERSED[queries.binary.packed]

    @abstractmethod
    def _stats(self) -> Any:
        """Return where faiss counts distances."""

    def _find(self, asked: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        stats = self._stats()
        stats.reset()
        distances, ids = self._engine.search(asked, k)
        found = (ids >= 0).sum(axis=1)
        return distances, ids, spread(found, stats.ndis, np.flatnonzero(found == k))

    def _lists(self, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        offsets, distances, rows = self._engine.range_search(asked, self._engine.d + 1)
        return offsets.astype(np.int64), rows, distances

    @staticmethod
    def _write(engine: Any, place: Any) -> None:
        faiss.write_index_binary(engine, place)

    @staticmethod
    def _read(path: str) -> Any:
        return faiss.read_index_binary(path)


class _HashEngine(BinaryEngine):
    """Hash tables over consecutive bits; a query visits all keys that differ from its own in ``nflip`` bits at most."""

    query_key = "nflip"
    nhash: int

    def __init__(
        self,
        keys: dict[str, Any],
        nhash: int,
        b: int | str,
        nflip: int | list[int],
        bits: int | None,
        gives: CodeKind,
        ranking: str,
    ) -> None:
        number = isinstance(b, int) and not isinstance(b, bool)
        if b != "auto" and not (number and 1 <= int(b) <= LONGEST_KEY):
            raise wrong_value("index.b", b, f"auto, or a number from 1 to {LONGEST_KEY}")
        if nhash < 1:
            raise wrong_value("index.nhash", nhash, "at least 1")
        super().__init__(gives, ranking, {**keys, "b": b, "nflip": nflip, "bits": bits}, nflip, least=0)
        self.nhash, self.b = nhash, b
        if bits is not None:
            self._key_bits(bits, None)

    def _key_bits(self, bits: int, items: int | None) -> int:
        """Return how many bits a table's key has, at most if the items aren't known; refuse what codes can't give."""
        limit = min(bits // self.nhash, LONGEST_KEY)
        if limit < 1:
            raise wrong_value("index.nhash", self.nhash, f"at most {bits}, the number of bits")
        if self.b != "auto":
            size = int(self.b)
        else:
            size = limit if items is None else max(1, min(round(math.log2(max(items, 1))) - 4, limit))
        if size > limit:
            share = f" / {self.nhash} tables, as no bit is read twice" if self.nhash > 1 else ""
            raise wrong_value("index.b", size, f"at most {limit}: {bits} bits of the code{share}")
        if self.values[-1] > size:
            raise wrong_value("index.nflip", self.values[-1], f"at most {size}, the bits of a key (index.b)")
        return size

    def _set_value(self, value: int) -> None:
        self._engine.nflip = value

    def _stats(self) -> Any:
        counters: Any = faiss.cvar
        return counters.indexBinaryHash_stats


class BinaryHashEngine(_HashEngine):
    """``IndexBinaryHash``: one table.

    Args:
        b: bits of a key; ``auto`` is log2(n) - 4, as with ``index=buckets``.
        nflip: bits in which the keys that a query visits may differ from its own; or a list.
        bits: the code's length, if known, so that what it doesn't allow is refused before any work.
    """

    option = "binary_hash"

    def __init__(
        self,
        *,
        b: int | str = "auto",
        nflip: int | list[int] = 0,
        bits: int | None = None,
        gives: CodeKind = "binary",
        ranking: str = "auto",
    ) -> None:
        super().__init__({}, 1, b, nflip, bits, gives, ranking)

    def _empty(self, bits: int, packed: np.ndarray) -> Any:
        return faiss.IndexBinaryHash(8 * packed.shape[1], self._key_bits(bits, len(packed)))


class BinaryMultiHashEngine(_HashEngine):
    """``IndexBinaryMultiHash``: several tables over consecutive bits (Norouzi, Punjani, Fleet, CVPR 2012).

    Args:
        nhash: tables.
        b: bits of each one's key; ``auto`` is log2(n) - 4, or the code's share of a table if that is less.
        nflip: bits in which the keys that a query visits in each table may differ from its own; or a list.
        bits: the code's length, if known, so that what it doesn't allow is refused before any work.
    """

    option = "binary_multi_hash"

    def __init__(
        self,
        *,
        nhash: int = 4,
        b: int | str = "auto",
        nflip: int | list[int] = 0,
        bits: int | None = None,
        gives: CodeKind = "binary",
        ranking: str = "auto",
    ) -> None:
        super().__init__({"nhash": nhash}, nhash, b, nflip, bits, gives, ranking)

    def _empty(self, bits: int, packed: np.ndarray) -> Any:
        return faiss.IndexBinaryMultiHash(8 * packed.shape[1], self.nhash, self._key_bits(bits, len(packed)))


class BinaryIvfEngine(BinaryEngine):
    """``IndexBinaryIVF``: codes by their nearest of ``nlist`` trained codes, of which a query visits the nearest few.

    Args:
        nlist: lists.
        nprobe: lists that a query visits; or several such numbers.
        seed: of the first centroids.
    """

    option = "binary_ivf"
    query_key: ClassVar[str | None] = "nprobe"

    def __init__(
        self,
        *,
        nlist: int = 256,
        nprobe: int | list[int] = 1,
        seed: int = 0,
        gives: CodeKind = "binary",
        ranking: str = "auto",
    ) -> None:
        if nlist < 1:
            raise wrong_value("index.nlist", nlist, "at least 1")
        super().__init__(gives, ranking, {"nlist": nlist, "nprobe": nprobe, "seed": seed}, nprobe)
        self.nlist, self.seed = nlist, seed
        if self.values[-1] > nlist:
            raise wrong_value("index.nprobe", self.values[-1], f"at most {nlist}, the number of lists (index.nlist)")

    def _empty(self, bits: int, packed: np.ndarray) -> Any:
        if self.nlist > len(packed):
            raise wrong_value("index.nlist", self.nlist, f"at most {len(packed)}, the items of the gallery")
        dimensions = 8 * packed.shape[1]
        engine = faiss.IndexBinaryIVF(faiss.IndexBinaryFlat(dimensions), dimensions, self.nlist)
        engine.cp.seed = 1234 + self.seed  # 1234 is faiss's own
        engine.cp.min_points_per_centroid = 1  # fewer would only be warned about
        engine.train(packed)
        return engine

    def _set_value(self, value: int) -> None:
        self._engine.nprobe = value

    def _stats(self) -> Any:
        counters: Any = faiss.cvar
        return counters.indexIVF_stats
