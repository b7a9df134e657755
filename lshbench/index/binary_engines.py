"""faiss's own indexes over codes: two kinds of hash tables and inverted lists, all by Hamming distance.

What they have in common is in :mod:`lshbench.index.engines`.  faiss reads a code's bits in order, so that its tables
are those that ``index=buckets index.draw=disjoint`` makes of the same code.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import faiss
import numpy as np

from lshbench.errors import wrong_value
from lshbench.index.engines import REVERSED, CandidateEngine, spread
from lshbench.index.files import MOST_PROBES, Stored
from lshbench.index.tables import LONGEST_KEY, check_key_bits, default_key_bits
from lshbench.types import CodeKind, Encoded


@dataclass(kw_only=True, eq=False)
class BinaryEngine(CandidateEngine):
    """A faiss index over a method's codes, which compares a query's whole code with those of its candidates.

    Attributes:
        stats: name of faiss's variable that counts distances.
    """

    gives: CodeKind = "binary"
    distance = "hamming"
    takes = frozenset({"binary"})
    stats: ClassVar[str]
    _write: ClassVar[Any] = staticmethod(faiss.write_index_binary)

    @abstractmethod
    def _empty(self, bits: int, packed: np.ndarray) -> Any:
        """Return the faiss index for codes of ``bits`` bits, trained and without items."""

    def _make(self, gallery: Encoded) -> Any:
        self._bits, self._added = gallery.binary.bits, self._asked(gallery)
        return self._filled(self._empty(self._bits, self._added))

    def _filled(self, engine: Any) -> Any:
        """Return an index without items with the codes added."""
        engine.add(self._added)
        return engine

    @property
    def code_bytes(self) -> int:
        return self._added.nbytes

    @property
    def _width(self) -> int:
        return self._bits

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"codes": self._added}

    def _remade(self, stored: Stored, features: np.ndarray | None) -> Any:
        """Return faiss's index with the same codes added again."""
        self._take_codes(stored)
        return self._filled(self._stored_empty(stored))

    def _take_codes(self, stored: Stored) -> None:
        self._bits = stored.dim
        self._added = np.array(stored.array("codes", np.uint8, (stored.items, (stored.dim + 7) // 8)))

    def _stored_empty(self, stored: Stored) -> Any:
        """Return the faiss index without items, trained as it was."""
        return self._empty(stored.dim, self._added)

    def _asked(self, queries: Encoded) -> np.ndarray:
        return REVERSED[queries.binary.packed]

    def _find(self, asked: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        stats = getattr(faiss.cvar, self.stats)
        stats.reset()
        distances, ids = self._engine.search(asked, k)
        found = (ids >= 0).sum(axis=1)
        return distances, ids, spread(found, stats.ndis, np.flatnonzero(found == k))

    def _lists(self, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        offsets, distances, rows = self._engine.range_search(asked, self._engine.d + 1)
        return offsets.astype(np.int64), rows, distances


@dataclass(kw_only=True, eq=False)
class _HashEngine(BinaryEngine):
    """Hash tables over consecutive bits; a query probes all keys that differ from its own in ``nflip`` bits at most."""

    b: int | str = "auto"
    nflip: int | list[int] = 0
    bits: int | None = None
    nhash = 1
    query_key = "nflip"
    stats = "indexBinaryHash_stats"
    least: ClassVar = {"nflip": 0, "nhash": 1}

    def __post_init__(self) -> None:
        check_key_bits("index.b", self.b)
        super().__post_init__()
        if self.bits is not None:
            self._key_bits(self.bits, None)

    def _key_bits(self, bits: int, items: int | None) -> int:
        """Return the length of a bucket key, the most if the items aren't known; refuse one too long for the code."""
        limit = min(bits // self.nhash, LONGEST_KEY)
        if limit < 1:
            raise wrong_value("index.nhash", self.nhash, f"at most {bits}, the number of bits")
        if self.b != "auto":
            size = int(self.b)
        else:
            size = limit if items is None else default_key_bits(items, limit)
        if size > limit:
            share = f" / {self.nhash} tables, as no bit is read twice" if self.nhash > 1 else ""
            raise wrong_value("index.b", size, f"at most {limit}: {bits} bits of the code{share}")
        if self.values[-1] > size:
            raise wrong_value("index.nflip", self.values[-1], f"at most {size}, the bits of a key (index.b)")
        return size

    def _stored_empty(self, stored: Stored) -> Any:
        size = self._key_bits(stored.dim, stored.items)
        if (probes := self.nhash * sum(math.comb(size, flips) for flips in range(self.values[-1] + 1))) > MOST_PROBES:
            raise ValueError(f"nflip={self.values[-1]} probes {probes} buckets")
        return super()._stored_empty(stored)


class BinaryHashEngine(_HashEngine):
    """``IndexBinaryHash``: one table.

    Args:
        b: bits of a bucket key; ``auto`` is log2(n) - 4, as with ``index=buckets``.
        nflip: the most bits in which a probed key differs from the query's own; or a list.
        bits: the code's length, if known, so that keys too long for it are refused before any work.
    """

    option = "binary_hash"

    def _empty(self, bits: int, packed: np.ndarray) -> Any:
        return faiss.IndexBinaryHash(8 * packed.shape[1], self._key_bits(bits, len(packed)))


@dataclass(kw_only=True, eq=False)
class BinaryMultiHashEngine(_HashEngine):
    """``IndexBinaryMultiHash``: several tables over consecutive bits (Norouzi, Punjani, Fleet, CVPR 2012).

    Args:
        nhash: number of tables.
        b: bits of each table's key; ``auto`` is log2(n) - 4, or the code's share of a table if that is less.
        nflip: the most bits in which a probed key of a table differs from the query's own; or a list.
        bits: the code's length, if known, so that keys too long for it are refused before any work.
    """

    nhash: int = 4
    option = "binary_multi_hash"

    def _empty(self, bits: int, packed: np.ndarray) -> Any:
        return faiss.IndexBinaryMultiHash(8 * packed.shape[1], self.nhash, self._key_bits(bits, len(packed)))


@dataclass(kw_only=True, eq=False)
class BinaryIvfEngine(BinaryEngine):
    """``IndexBinaryIVF``: inverted lists of codes around ``nlist`` centroids, of which a query probes the nearest few.

    Args:
        nlist: number of lists.
        nprobe: lists that a query probes; or a list of such numbers.
        seed: of the first centroids.
    """

    nlist: int = 256
    nprobe: int | list[int] = 1
    seed: int = 0
    option = "binary_ivf"
    query_key = "nprobe"
    stats = "indexIVF_stats"
    least: ClassVar = {"nlist": 1}

    def __post_init__(self) -> None:
        super().__post_init__()
        if (most := self.values[-1]) > self.nlist:
            raise wrong_value("index.nprobe", most, f"at most {self.nlist}, the number of lists (index.nlist)")

    @property
    def fixed_bytes(self) -> int:
        return self.nlist * self._added.shape[1]

    def _arrays(self) -> dict[str, np.ndarray]:
        centroids: Any = faiss.downcast_IndexBinary(self._engine.quantizer)
        return super()._arrays() | {"centroids": faiss.vector_to_array(centroids.xb).reshape(self.nlist, -1)}

    def _stored_empty(self, stored: Stored) -> Any:
        width = (stored.dim + 7) // 8
        quantizer = faiss.IndexBinaryFlat(8 * width)
        quantizer.add(np.array(stored.array("centroids", np.uint8, (self.nlist, width))))
        engine = faiss.IndexBinaryIVF(quantizer, 8 * width, self.nlist)
        engine.is_trained = True
        return engine

    def _empty(self, bits: int, packed: np.ndarray) -> Any:
        if self.nlist > len(packed):
            raise wrong_value("index.nlist", self.nlist, f"at most {len(packed)}, the items of the gallery")
        dimensions = 8 * packed.shape[1]
        engine = faiss.IndexBinaryIVF(faiss.IndexBinaryFlat(dimensions), dimensions, self.nlist)
        engine.cp.seed = 1234 + self.seed  # 1234 is faiss's default
        engine.cp.min_points_per_centroid = 1  # with its default, faiss warns of fewer
        engine.train(packed)
        return engine
