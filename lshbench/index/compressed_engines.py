"""faiss's indexes that compress the features themselves: product quantisers, RaBitQ and scalar quantisers.

Features are taken at length 1, and may be reduced by principal axes of the gallery and a random rotation of them.
faiss compares squared Euclidean distances; what is given is half of them, which for vectors of length 1 is one minus
the cosine that the code estimates.  A code's bytes are ``nbits / 8``, factors included, as those of quantisers are:
links, centroids, codebooks and numbers of items are the index.  The axes belong to encoding, as a method's weights do.

``index.oversample`` rescores what they find by the features, which faiss calls refining.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import faiss
import numpy as np

from lshbench.errors import UsageError, wrong_value
from lshbench.index.engines import CandidateEngine, GraphEngine, spread
from lshbench.index.files import Stored, check_offsets, check_range, check_rows
from lshbench.index.graphs import restore_graph
from lshbench.index.ivf import directions
from lshbench.ranking.lists import as_lists
from lshbench.types import MOST_BITS, Encoded

SAMPLE = 20_000
"""Gallery items that axes (drawn by the seed) and codebooks without lists (each n-th) are learnt from, at most; for
lists, faiss draws some itself."""

LARGEST = float(np.finfo(np.float32).max)
BEYOND = 1e30
"""A squared distance that none exceeds."""

RABITQ_FACTORS = 8
"""Bytes of a RaBitQ code with one bit a dimension that are the item's factors."""

SCALARS = {4: faiss.ScalarQuantizer.QT_4bit, 8: faiss.ScalarQuantizer.QT_8bit}


@dataclass(frozen=True)
class Reduction:
    """Vectors at length 1, less their mean, on rotated principal axes.

    Attributes:
        mean: float32 ``(d,)``.
        weight: float32 ``(d, dim)``, orthonormal columns.
    """

    mean: np.ndarray
    weight: np.ndarray

    @classmethod
    def learn(cls, features: np.ndarray, dim: int, seed: int) -> Reduction:
        """Return the ``dim`` principal axes of features, float32 ``(n, d)``, rotated so that each has as much variance.

        Args:
            features: of the gallery.
            dim: axes, at most ``d``.
            seed: of the items drawn and the rotation.
        """
        generator = np.random.default_rng(seed)
        rows: slice | np.ndarray = slice(None)
        if len(features) > SAMPLE:
            rows = np.sort(generator.choice(len(features), SAMPLE, replace=False))
        units = directions(features[rows])
        mean = units.mean(axis=0)
        units -= mean
        _, axes = np.linalg.eigh((units.T @ units).astype(np.float64))
        rotation, _ = np.linalg.qr(generator.standard_normal((dim, dim)))
        return cls(mean, np.ascontiguousarray(axes[:, ::-1][:, :dim] @ rotation, np.float32))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Return reduced vectors, float32 ``(n, dim)``."""
        units = directions(features)
        units -= self.mean
        return units @ self.weight

    @classmethod
    def stored(cls, stored: Stored) -> Reduction:
        """Return a saved reduction, checked."""
        weight = stored.array("weight", np.float32, (None, stored.dim))
        mean = stored.array("mean", np.float32, (len(weight),))
        return cls(check_range("mean.npy", mean, -1, 1), check_range("weight.npy", weight, -2, 2))


@dataclass(kw_only=True, eq=False)
class CompressedEngine(CandidateEngine):
    """A faiss index over codes that it makes of the features.

    Args:
        seed: of the items that are learnt from, the rotation, and the first centroids.
    """

    seed: int = 0
    distance = "asymmetric"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._reduction: Any = None

    def _reduced(self, features: np.ndarray, dim: int) -> np.ndarray:
        """Learn the reduction to ``dim`` numbers, or fewer where the features have fewer, and return it of features."""
        self._reduction = Reduction.learn(features, dim, self.seed)
        return self._reduction(features)

    @property
    @abstractmethod
    def _code_size(self) -> int:
        """Bytes of an item's code."""

    @property
    def code_bytes(self) -> int:
        return self._code_size * len(self)

    @property
    @abstractmethod
    def fixed_bytes(self) -> int: ...

    def _asked(self, queries: Encoded) -> np.ndarray:
        return self._reduction(queries.features)

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"mean": self._reduction.mean, "weight": self._reduction.weight}


def product_dim(parts: int, nbits: int, features: np.ndarray) -> int:
    """Return how many numbers a product quantiser of some parts reduces features to: as many as bits, if there are.

    Raises:
        UsageError: there are fewer than parts.
    """
    dim = min(nbits, features.shape[1]) // parts * parts
    if not dim:
        width = features.shape[1]
        most = nbits // parts * width
        raise wrong_value("index.nbits", nbits, f"at most {most}: {parts} parts of features of {width} numbers")
    return dim


def check_entries(items: int, entries: int) -> None:
    """Refuse to learn a codebook from fewer items than it has entries."""
    if items < entries:
        raise UsageError(f"{items} gallery items: expected at least {entries}, as many as a codebook has entries")


@dataclass(kw_only=True, eq=False)
class SizedEngine(CompressedEngine):
    """A compressed index whose code has the length that it is asked for.

    Args:
        nbits: of a code, a multiple of 8.
    """

    nbits: int = 64
    least_bits: ClassVar[int] = 8

    def __post_init__(self) -> None:
        least, bits = self.least_bits, self.nbits
        if isinstance(bits, bool) or not isinstance(bits, int) or bits % 8 or not least <= bits <= MOST_BITS:
            raise wrong_value("index.nbits", bits, f"a multiple of 8 from {least} to {MOST_BITS}")
        super().__post_init__()

    @property
    def _code_size(self) -> int:
        return self.nbits // 8


@dataclass(kw_only=True, eq=False)
class PqFastScanEngine(SizedEngine):
    """``IndexPQFastScan``: every item by product quantisation of 4 bits a part, looked up in the processor's registers.

    Andre, Kermarrec, Le Scouarnec, Quicker ADC: unlocking the hidden potential of product quantization with SIMD,
    TPAMI 2021.  Distances are sums of bytes, so that many items tie.

    Args:
        nbits: of a code, a multiple of 8: two parts a byte.
    """

    option = "pq_fastscan"

    @property
    def fixed_bytes(self) -> int:
        return self._centroids.nbytes

    def _make(self, gallery: Encoded) -> Any:
        check_entries(len(gallery), 16)
        parts = self.nbits // 4
        vectors = self._reduced(gallery.features, product_dim(parts, self.nbits, gallery.features))
        if not np.ptp(vectors, axis=0).any():  # distances would be scaled by their range, to NaN
            raise UsageError(
                f"index={self.option}: expected items that differ: all {len(vectors)} of the gallery have the same "
                "direction"
            )
        plain: Any = faiss.IndexPQ(vectors.shape[1], parts, 4)
        plain.pq.cp.seed = 1234 + self.seed  # 1234 is faiss's default
        plain.pq.cp.min_points_per_centroid = 1  # with its default, faiss warns of fewer
        plain.train(vectors[:: -(-len(vectors) // SAMPLE)])
        plain.add(vectors)
        return self._packed(plain)

    def _packed(self, plain: Any) -> Any:
        """Return the codes of ``IndexPQ`` as they are looked up."""
        self._codes = faiss.vector_to_array(plain.codes).reshape(plain.ntotal, -1)
        self._centroids = faiss.vector_to_array(plain.pq.centroids)
        return faiss.IndexPQFastScan(plain)

    def _arrays(self) -> dict[str, np.ndarray]:
        return super()._arrays() | {"codes": self._codes, "codebooks": self._centroids}

    def _remade(self, stored: Stored, features: np.ndarray | None) -> Any:
        parts = self.nbits // 4
        if stored.dim % parts:
            raise ValueError(f"{stored.dim} numbers in {parts} parts")
        self._reduction = Reduction.stored(stored)
        plain: Any = faiss.IndexPQ(stored.dim, parts, 4)
        restore(plain.pq.centroids, "codebooks", stored, 16 * stored.dim)
        faiss.copy_array_to_vector(
            np.ascontiguousarray(stored.array("codes", np.uint8, (stored.items, self.nbits // 8))).ravel(), plain.codes
        )
        plain.ntotal, plain.is_trained = stored.items, True
        return self._packed(plain)

    def _find(self, asked: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        distances, ids = self._engine.search(asked, k)
        return distances / 2, ids, np.full(len(asked), len(self), np.int64)

    def _lists(self, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return as_lists(*self._find(asked, len(self))[:2])


@dataclass(kw_only=True, eq=False)
class CompressedListsEngine(SizedEngine):
    """Inverted lists of codes of what is left of an item less its list's centroid.

    Args:
        nlist: number of lists.
        nprobe: lists that a query probes; or a list of such numbers.
    """

    nlist: int = 256
    nprobe: int | list[int] = 8
    query_key = "nprobe"
    least: ClassVar = {"nlist": 1}

    def __post_init__(self) -> None:
        super().__post_init__()
        if (most := self.values[-1]) > self.nlist:
            raise wrong_value("index.nprobe", most, f"at most {self.nlist}, the number of lists (index.nlist)")

    @abstractmethod
    def _empty(self, dim: int, quantizer: Any) -> Any:
        """Return the faiss index of vectors of ``dim`` numbers around a quantiser of its centroids, untrained."""

    @abstractmethod
    def _dim(self, features: np.ndarray) -> int:
        """Return how many numbers features are reduced to."""

    @property
    def fixed_bytes(self) -> int:
        return 4 * self.nlist * self._engine.d

    def _make(self, gallery: Encoded) -> Any:
        if self.nlist > len(gallery):
            raise wrong_value("index.nlist", self.nlist, f"at most {len(gallery)}, the items of the gallery")
        vectors = self._reduced(gallery.features, self._dim(gallery.features))
        engine = self._empty(vectors.shape[1], faiss.IndexFlatL2(vectors.shape[1]))
        engine.cp.seed = 1234 + self.seed  # 1234 is faiss's default
        engine.cp.min_points_per_centroid = 1  # with its default, faiss warns of fewer
        engine.train(vectors)
        engine.add(vectors)
        return engine

    def _arrays(self) -> dict[str, np.ndarray]:
        lists, size = self._engine.invlists, self._code_size
        offsets = np.concatenate([[0], np.cumsum([lists.list_size(number) for number in range(self.nlist)])])
        codes, ids = np.empty((len(self), size), np.uint8), np.empty(len(self), np.int32)
        for number, (start, stop) in enumerate(pairwise(offsets.tolist())):
            if start < stop:
                codes[start:stop].reshape(-1)[:] = faiss.rev_swig_ptr(lists.get_codes(number), (stop - start) * size)
                ids[start:stop] = faiss.rev_swig_ptr(lists.get_ids(number), stop - start)
        centroids = faiss.downcast_index(self._engine.quantizer).reconstruct_n(0, self.nlist)
        return super()._arrays() | {"centroids": centroids, "offsets": offsets, "ids": ids, "codes": codes}

    def _remade(self, stored: Stored, features: np.ndarray | None) -> Any:
        self._check_stored(stored)
        self._reduction = Reduction.stored(stored)
        centroids = stored.array("centroids", np.float32, (self.nlist, stored.dim))
        quantizer = faiss.IndexFlatL2(stored.dim)
        quantizer.add(
            np.array(check_range("centroids.npy", centroids, -4, 4))
        )  # of vectors of length 1 less their mean
        offsets = check_offsets("offsets.npy", stored.array("offsets", np.int64, (self.nlist + 1,)), stored.items)
        ids = check_rows("ids.npy", stored.array("ids", np.int32, (stored.items,)), stored.items).astype(np.int64)
        codes = np.array(stored.array("codes", np.uint8, (stored.items, self._code_size)))
        engine = self._empty(stored.dim, quantizer)
        self._relearn(engine, stored)
        for number, (start, stop) in enumerate(pairwise(offsets.tolist())):
            pointers = faiss.swig_ptr(ids[start:stop]), faiss.swig_ptr(codes[start:stop])
            engine.invlists.add_entries(number, stop - start, *pointers)
        engine.ntotal = stored.items
        return engine

    @abstractmethod
    def _check_stored(self, stored: Stored) -> None:
        """Raise ValueError unless vectors of a saved index have as many numbers as its keys say."""

    def _relearn(self, engine: Any, stored: Stored) -> None:
        """Give an index without items what it learnt besides its centroids."""
        engine.is_trained = True

    def _find(self, asked: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        counters: Any = faiss.cvar
        stats = counters.indexIVF_stats
        stats.reset()
        distances, ids = self._engine.search(asked, k)
        found = (ids >= 0).sum(axis=1)
        return distances / 2, ids, spread(found, stats.ndis, np.flatnonzero(found == k))

    def _lists(self, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        offsets, distances, rows = self._engine.range_search(asked, BEYOND)
        return offsets.astype(np.int64), rows, distances / 2


@dataclass(kw_only=True, eq=False)
class IvfPqEngine(CompressedListsEngine):
    """``IndexIVFPQ``: product quantisation of a byte a part (Jegou, Douze, Schmid, TPAMI 2011).

    Args:
        nbits: of a code, a multiple of 8: one part a byte.
    """

    option = "ivf_pq"

    @property
    def fixed_bytes(self) -> int:
        return super().fixed_bytes + 4 * 256 * self._engine.d + self._table_bytes

    @property
    def _table_bytes(self) -> int:
        """Bytes of what faiss computes beforehand: a number for each pair of a centroid and an entry of a codebook."""
        return 4 * self._engine.precomputed_table.size()

    def _size(self) -> int:
        return super()._size() + self._table_bytes

    def _dim(self, features: np.ndarray) -> int:
        check_entries(len(features), 256)
        return product_dim(self._code_size, self.nbits, features)

    def _empty(self, dim: int, quantizer: Any) -> Any:
        engine: Any = faiss.IndexIVFPQ(quantizer, dim, self.nlist, self._code_size, 8)
        engine.pq.cp.seed = 1234 + self.seed
        engine.pq.cp.min_points_per_centroid = 1
        return engine

    def _arrays(self) -> dict[str, np.ndarray]:
        return super()._arrays() | {"codebooks": faiss.vector_to_array(self._engine.pq.centroids)}

    def _check_stored(self, stored: Stored) -> None:
        if stored.dim % self._code_size:
            raise ValueError(f"{stored.dim} numbers in {self._code_size} parts")

    def _relearn(self, engine: Any, stored: Stored) -> None:
        restore(engine.pq.centroids, "codebooks", stored, 256 * stored.dim)
        engine.is_trained = True
        engine.precompute_table()


@dataclass(kw_only=True, eq=False)
class IvfRabitqEngine(CompressedListsEngine):
    """``IndexIVFRaBitQ``: signs around the list's centroid, and factors of the item (Gao and Long, SIGMOD 2024).

    Args:
        nbits: of a code, a multiple of 8; 64 of them are its factors, and each of the others is a dimension.
        query_bits: to which a query's numbers are rounded, 1 to 8; 0: not at all.
    """

    nbits: int = 128
    query_bits: int = 8
    option = "ivf_rabitq"
    least_bits = 8 * (RABITQ_FACTORS + 1)

    def __post_init__(self) -> None:
        if isinstance(self.query_bits, bool) or self.query_bits not in range(9):
            raise wrong_value("index.query_bits", self.query_bits, "a number from 0 to 8")
        super().__post_init__()

    def _dim(self, features: np.ndarray) -> int:
        if (dim := self.nbits - 8 * RABITQ_FACTORS) > features.shape[1]:
            most = features.shape[1] // 8 * 8 + 8 * RABITQ_FACTORS
            if most < self.least_bits:
                raise UsageError(f"index=ivf_rabitq: expected features of at least 8 numbers, not {features.shape[1]}")
            raise wrong_value("index.nbits", self.nbits, f"at most {most} for features of {features.shape[1]} numbers")
        return dim

    def _empty(self, dim: int, quantizer: Any) -> Any:
        engine: Any = faiss.IndexIVFRaBitQ(quantizer, dim, self.nlist, faiss.METRIC_L2)
        engine.qb = self.query_bits
        return engine

    def _check_stored(self, stored: Stored) -> None:
        if stored.dim != self.nbits - 8 * RABITQ_FACTORS:
            raise ValueError(f"nbits={self.nbits} for {stored.dim} numbers")


@dataclass(kw_only=True, eq=False)
class HnswSqEngine(GraphEngine, CompressedEngine):
    """``IndexHNSWSQ``: a graph over features whose numbers are rounded to 256 or 16 levels.

    Args:
        dim: numbers that features are reduced to, at most; None for as many as they have.
        bits_per_dimension: 8 or 4.
    """

    dim: int | None = None
    bits_per_dimension: int = 8
    option = "hnsw_sq"
    distance = "asymmetric"

    def __post_init__(self) -> None:
        if self.bits_per_dimension not in SCALARS:
            raise wrong_value("index.bits_per_dimension", self.bits_per_dimension, "4 or 8")
        if self.dim is not None and (isinstance(self.dim, bool) or not isinstance(self.dim, int) or self.dim < 1):
            raise wrong_value("index.dim", self.dim, "null, or a number of components, at least 1")
        super().__post_init__()

    @property
    def _code_size(self) -> int:
        return (self._engine.d * self.bits_per_dimension + 7) // 8

    @property
    def fixed_bytes(self) -> int:
        return 4 * 2 * self._engine.d  # the ranges of the levels

    def _empty(self, dim: int) -> Any:
        make: Any = faiss.IndexHNSWSQ
        return make(dim, SCALARS[self.bits_per_dimension], self.m)

    def _make(self, gallery: Encoded) -> Any:
        width = gallery.features.shape[1]
        vectors = self._reduced(gallery.features, min(self.dim or width, width))
        engine = self._empty(vectors.shape[1])
        engine.train(vectors)
        return self._grown(engine, vectors)

    def _arrays(self) -> dict[str, np.ndarray]:
        storage: Any = faiss.downcast_index(self._engine.storage)
        codes = faiss.vector_to_array(storage.codes).reshape(len(self), -1)
        ranges = faiss.vector_to_array(storage.sq.trained)
        return CompressedEngine._arrays(self) | super()._arrays() | {"codes": codes, "ranges": ranges}

    def _remade(self, stored: Stored, features: np.ndarray | None) -> Any:
        self._reduction = Reduction.stored(stored)
        engine = self._empty(stored.dim)
        restore_graph(engine.hnsw, stored, self.m, self.values[-1])
        storage: Any = faiss.downcast_index(engine.storage)
        restore(storage.sq.trained, "ranges", stored, 2 * stored.dim)
        codes = stored.array("codes", np.uint8, (stored.items, (stored.dim * self.bits_per_dimension + 7) // 8))
        faiss.copy_array_to_vector(np.ascontiguousarray(codes).ravel(), storage.codes)
        storage.ntotal = engine.ntotal = stored.items
        storage.is_trained = engine.is_trained = True
        return engine

    def _walk(self, asked: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        distances, ids, candidates = super()._walk(asked, k)
        return distances / 2, ids, candidates


def restore(target: Any, name: str, stored: Stored, numbers: int) -> None:
    """Give a vector of faiss's the numbers of a saved array, float32 ``(numbers,)``, which are finite."""
    values = check_range(f"{name}.npy", stored.array(name, np.float32, (numbers,)), -LARGEST, LARGEST)
    faiss.copy_array_to_vector(np.ascontiguousarray(values), target)
