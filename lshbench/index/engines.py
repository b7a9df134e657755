"""faiss's own indexes over the original features, and what all of its indexes here have in common.

They stand beside our own so that every method can be compared with an engine.  One rule holds for all of them: **what
faiss gives is the ranking, and items that it doesn't give were never retrieved.**  Complete rankings ask it for all
that it can give: every item of the buckets or lists that a query probes (a range search without a limit), the whole
gallery of ``lsh``, the ``ef_search`` results of ``hnsw``.

Candidates are the distances that faiss says it computed.  It counts a batch, not a query: a query that found fewer than
``k`` was compared with just these, and what is left of the count is spread evenly over the others (over all of them for
``hnsw``, which computes more distances than it gives results).  A query alone has its own count.

Of items at the same distance as the last result, faiss decides which it gives; results are ordered by (distance,
gallery row).  Memory is the size of what faiss writes to a file, codes and features in it counted apart; its hash
tables take more while they are in use.

faiss's own file, ``engine.faiss``, is written for faiss and never read here: what it says can't be checked, and with
one bit turned, reading it may never end or take any memory.  An index is opened from arrays, which are checked, and is
made of them as it was built: codes are added again, a graph's links are taken over.

Over codes: :mod:`lshbench.index.binary_engines` and :mod:`lshbench.index.binary_graphs`; over features that faiss
compresses: :mod:`lshbench.index.compressed_engines`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import faiss
import numpy as np

from lshbench.errors import wrong_value
from lshbench.index.base import Index, Ranking, query_values
from lshbench.index.files import (
    MOST_DIMENSIONS,
    Stored,
    check_features,
    check_number,
    check_range,
    open_description,
    save_arrays,
    save_description,
)
from lshbench.index.graphs import MOST_LINKS, graph_arrays, one_thread, restore_graph
from lshbench.index.ivf import directions
from lshbench.ranking.hamming import CodeGallery, hamming_blocks
from lshbench.ranking.lists import as_lists, list_blocks
from lshbench.types import MOST_BITS, CodeKind, Codes, Encoded, Neighbors, RankedBlock, Relevance

FILE = "engine.faiss"

Find = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""Callback that finds results (:meth:`Engine._find`)."""

BLOCK_CANDIDATES = 1 << 24
"""Results that complete rankings hold at a time, at most: some 400 MB."""

REVERSED = np.packbits(
    np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1), axis=1, bitorder="little"
).ravel()
"""Every byte with its bits reversed: faiss numbers bits from the lowest, ``Codes`` from the highest."""


@dataclass(kw_only=True, eq=False)
class Engine(Index):
    """A faiss index: built, searched, saved and opened by faiss.  The fields are the constructor's keys.

    Attributes:
        distance: ``hamming`` or ``cosine``.
        query_key: the key that only concerns queries, or None.
        least: the smallest number that some keys allow; 1 for the query key if it isn't named.
        most: the largest.
    """

    gives: CodeKind = "nothing"
    ranking: Any = "auto"

    takes = frozenset({"nothing"})
    distance: ClassVar[Ranking]
    query_key: ClassVar[str | None] = None
    least: ClassVar[dict[str, int]] = {}
    most: ClassVar[dict[str, int]] = {}
    file: ClassVar[str] = FILE
    _write: ClassVar[Any] = staticmethod(faiss.write_index)

    def __post_init__(self) -> None:
        super().__init__(self.gives, self.ranking)
        for key, least in self.least.items():
            if key != self.query_key and getattr(self, key) < least:
                raise wrong_value(f"index.{key}", getattr(self, key), f"at least {least}")
        for key, most in self.most.items():
            if getattr(self, key) > most:
                raise wrong_value(f"index.{key}", getattr(self, key), f"at most {most}")
        self.values: list[int] = []
        if self.query_key is not None:
            given, least = getattr(self, self.query_key), self.least.get(self.query_key, 1)
            self.values = query_values(f"index.{self.query_key}", given, least)
            self.value = self.values[-1]
        self._engine: Any = None

    def rankings(self) -> list[Ranking]:
        return [self.distance]

    def points(self) -> list[dict[str, int]]:
        return [{}] if self.query_key is None else [{self.query_key: value} for value in self.values]

    def set_point(self, point: Mapping[str, int]) -> None:
        if self.query_key is None:
            super().set_point(point)
            return
        self.value = point[self.query_key]
        if self._engine is not None:
            self._set_value(self.value)

    def build(self, gallery: Encoded) -> Self:
        return self._with_engine(self._make(gallery))

    def _with_engine(self, engine: Any) -> Self:
        self._engine = engine
        self._bytes = self._size()
        self.set_point(self.points()[-1])
        return self

    def __len__(self) -> int:
        return self._engine.ntotal

    def _size(self) -> int:
        """Return the bytes of the engine's own file, and of what searching reads that is not in it."""
        return _file_bytes(self._engine, self._write)

    @abstractmethod
    def _make(self, gallery: Encoded) -> Any:
        """Return the faiss index of a gallery."""

    def _set_value(self, value: int) -> None:
        """Give faiss the query setting, which most of its indexes call what :attr:`query_key` does."""
        setattr(self._engine, str(self.query_key), value)

    @abstractmethod
    def _asked(self, queries: Encoded) -> np.ndarray:
        """Return queries as faiss takes them."""

    @abstractmethod
    def _find(self, asked: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return distances ``(q, k')``, ids ``(q, k')`` of at most ``k`` results and candidates ``(q,)``."""

    def search(self, queries: Encoded, k: int) -> Neighbors:
        return self._found_by(self._find, queries, k)

    def _found_by(self, find: Find, queries: Encoded, k: int) -> Neighbors:
        results = Neighbors.unfilled(np.zeros(len(queries), np.int64), k)
        distances, found, results.candidates[:] = find(self._asked(queries), min(k, len(self)))
        distances = np.where(found < 0, np.float32(np.inf), distances)
        order = np.lexsort((found, distances), axis=1)
        results.ids[:, : found.shape[1]] = np.take_along_axis(found, order, axis=1)
        results.distances[:, : found.shape[1]] = np.take_along_axis(distances, order, axis=1)
        return results

    @property
    def bytes(self) -> int:
        return self._bytes - self.feature_bytes

    def save(self, folder: Path) -> None:
        """Write ``engine.faiss``, for faiss itself, the arrays that :meth:`open` reads, and ``index.json`` last."""
        self._write(self._engine, str(folder / self.file))
        files = save_arrays(folder, {f"{name}.npy": array for name, array in self._arrays().items()})
        keys = {field.name: getattr(self, field.name) for field in fields(self)}
        common = {"index": self.option, "ranking": self.ranking, "items": len(self), "dim": self._width}
        save_description(folder, common | {"file": self.file, "files": files, "keys": keys})

    @property
    def _width(self) -> int:
        """How many numbers or bits of an item faiss compares."""
        return self._engine.d

    @abstractmethod
    def _arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays that :meth:`_remade` takes, by name."""

    @abstractmethod
    def _remade(self, stored: Stored, features: np.ndarray | None) -> Any:
        """Return the faiss index that :meth:`_arrays` were of, checked.

        Raises:
            ValueError: the arrays are not those of such an index.
        """

    @classmethod
    def open(cls, folder: Path, features: np.ndarray | None = None) -> Self:
        """Return a saved index at its most thorough point; what faiss compares is in memory."""
        description = open_description(folder, cls.option)
        index = cls(**description["keys"])
        stored = Stored(folder, description["items"], check_number(description, "dim", MOST_DIMENSIONS))
        return index._with_engine(index._remade(stored, features))


class CandidateEngine(Engine):
    """A faiss index that compares a query with some of the gallery only."""

    def rank(self, queries: Encoded, relevance: Relevance, *, positions: int | None = None) -> Iterator[RankedBlock]:
        asked = self._asked(queries)
        step = max(1, BLOCK_CANDIDATES // max(1, self._most_results()))
        for start in range(0, len(asked), step):
            stop = min(start + step, len(asked))
            lists = self._lists(asked[start:stop])
            yield from list_blocks(*lists, relevance.rows(start, stop), positions=positions)

    def _most_results(self) -> int:
        """Return how many results a query can have."""
        return len(self)

    @abstractmethod
    def _lists(self, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return all that faiss can give: offsets ``(q + 1,)``, gallery rows and distances (see ``list_blocks``)."""


@dataclass(kw_only=True, eq=False)
class LshEngine(Engine):
    """``IndexLSH``: signs of random projections of the features, all of them compared by Hamming distance.

    faiss projects the features without centring them; its remedy for that is ``train_thresholds``.
    Complete rankings are made from faiss's codes by our kernels, which give the same distances.

    Args:
        nbits: hyperplanes.
        train_thresholds: let each bit be set for half of the gallery, instead of for projections above 0.
        seed: of the projections; 0 gives faiss's own.
    """

    nbits: int
    train_thresholds: bool = False
    seed: int = 0
    option = "lsh"
    distance = "hamming"

    def __post_init__(self) -> None:
        if not 1 <= self.nbits <= MOST_BITS:
            raise wrong_value("index.nbits", self.nbits, f"a number from 1 to {MOST_BITS}")
        super().__post_init__()
        self._codes: CodeGallery | None = None

    @property
    def code_bytes(self) -> int:
        return len(self) * ((self.nbits + 7) // 8)

    def _size(self) -> int:
        """Return the bytes of faiss's file but for what makes codes of features, which belongs to encoding."""
        encoding = self._engine.rrot.A.size() + self._engine.thresholds.size()
        return super()._size() - 4 * encoding

    def _make(self, gallery: Encoded) -> Any:
        vectors = np.ascontiguousarray(gallery.features, np.float32)
        engine = faiss.IndexLSH(vectors.shape[1], self.nbits, True, self.train_thresholds)
        engine.rrot.init(5 + self.seed)  # 5 is faiss's default
        engine.train(vectors)
        engine.add(vectors)
        self._codes = None
        return engine

    def _arrays(self) -> dict[str, np.ndarray]:
        engine, rotation = self._engine, self._engine.rrot
        return {
            "codes": faiss.vector_to_array(engine.codes).reshape(len(self), -1),
            "rotation": faiss.vector_to_array(rotation.A).reshape(rotation.d_out, rotation.d_in),
            "thresholds": faiss.vector_to_array(engine.thresholds),
        }

    def _remade(self, stored: Stored, features: np.ndarray | None) -> Any:
        codes = stored.array("codes", np.uint8, (stored.items, (self.nbits + 7) // 8))
        rotation = stored.array("rotation", np.float32, (max(self.nbits, 1), stored.dim))
        thresholds = stored.array("thresholds", np.float32, (self.nbits if self.train_thresholds else 0,))
        largest = float(np.finfo(np.float32).max)
        engine: Any = faiss.IndexLSH(stored.dim, self.nbits, True, self.train_thresholds)
        for target, values in (
            (engine.codes, codes),
            (engine.rrot.A, check_range("rotation.npy", rotation, -largest, largest)),
            (engine.thresholds, check_range("thresholds.npy", thresholds, -largest, largest)),
        ):
            faiss.copy_array_to_vector(np.ascontiguousarray(values).ravel(), target)
        engine.rrot.is_trained = engine.is_trained = True
        engine.ntotal = stored.items
        return engine

    def _asked(self, queries: Encoded) -> np.ndarray:
        return np.ascontiguousarray(queries.features, np.float32)

    def _find(self, asked: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        distances, ids = self._engine.search(asked, k)
        return distances, ids, np.full(len(asked), len(self), np.int64)

    def rank(self, queries: Encoded, relevance: Relevance, *, positions: int | None = None) -> Iterator[RankedBlock]:
        if self._codes is None:
            stored = faiss.vector_to_array(self._engine.codes).reshape(len(self), -1)
            self._codes = CodeGallery.from_codes(Codes(REVERSED[stored], self.nbits))
        asked = Codes(REVERSED[self._engine.sa_encode(self._asked(queries))], self.nbits)
        return hamming_blocks(asked, self._codes, relevance, positions=positions)


@dataclass(kw_only=True, eq=False)
class GraphEngine(CandidateEngine):
    """A faiss graph of neighbouring items (HNSW), searched greedily.

    Malkov and Yashunin, Efficient and robust approximate nearest neighbor search using hierarchical navigable small
    world graphs, TPAMI 2018.  Built on one thread, as the graph of several would differ from run to run.

    Args:
        m: links of an item in each layer above the lowest, which has twice as many.
        ef_construction: length of the candidate list while an item is inserted.
        ef_search: length of a query's candidate list, and so the most results that it has; or a list of numbers.  Where
            results are rescored, the list is at least as long as what is rescored.
    """

    m: int = 32
    ef_construction: int = 80
    ef_search: int | list[int] = 100
    query_key = "ef_search"
    least: ClassVar = {"m": 2, "ef_construction": 1}
    most: ClassVar = {"m": MOST_LINKS}

    def _grown(self, engine: Any, items: np.ndarray) -> Any:
        """Return an empty graph with items added."""
        engine.hnsw.efConstruction = self.ef_construction
        with one_thread():
            engine.add(items)
        return engine

    def _arrays(self) -> dict[str, np.ndarray]:
        return graph_arrays(self._engine.hnsw)

    def _set_value(self, value: int) -> None:
        self._engine.hnsw.efSearch = value

    def _find(self, asked: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self._walk(asked, min(k, self.value))

    def _walk(self, asked: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Do as :meth:`_find`, with a longer candidate list than the point's for more results."""
        library: Any = faiss
        stats = library.cvar.hnsw_stats
        stats.reset()
        # faiss itself would lengthen the list, but stop where the point's ends.
        longer = {"params": library.SearchParametersHNSW(efSearch=k)} if k > self.value else {}
        distances, ids = self._engine.search(asked, k, **longer)
        return distances, ids, spread(np.zeros(len(asked), np.int64), stats.ndis, np.arange(len(asked)))

    def search_for_rescoring(self, queries: Encoded, k: int) -> Neighbors:
        return self._found_by(self._walk, queries, k)

    def _most_results(self) -> int:
        return self.value

    def _lists(self, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return as_lists(*self._find(asked, min(self.value, len(self)))[:2])


class HnswEngine(GraphEngine):
    """``IndexHNSWFlat``: a graph searched by cosine of the features, of which it keeps a copy at length 1."""

    option = "hnsw"
    distance = "cosine"

    @property
    def ranks_features(self) -> bool:
        return True

    @property
    def feature_bytes(self) -> int:
        return 4 * len(self) * self._engine.d

    def _make(self, gallery: Encoded) -> Any:
        engine = faiss.IndexHNSWFlat(gallery.features.shape[1], self.m, faiss.METRIC_INNER_PRODUCT)
        return self._grown(engine, directions(gallery.features))

    def _remade(self, stored: Stored, features: np.ndarray | None) -> Any:
        """Return the graph over the gallery's features."""
        vectors = check_features(features, {"items": stored.items, "dim": stored.dim})
        engine: Any = faiss.IndexHNSWFlat(stored.dim, self.m, faiss.METRIC_INNER_PRODUCT)
        restore_graph(engine.hnsw, stored, self.m, self.values[-1])
        engine.storage.add(directions(vectors))
        engine.ntotal = stored.items
        return engine

    def _asked(self, queries: Encoded) -> np.ndarray:
        return directions(queries.features)

    def _walk(self, asked: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        cosines, ids, candidates = super()._walk(asked, k)
        return 1 - cosines, ids, candidates


def spread(counts: np.ndarray, total: int, rows: np.ndarray) -> np.ndarray:
    """Return counts, int64 ``(q,)``, with what they lack of a total spread evenly over some rows."""
    counts = counts.astype(np.int64)
    if len(rows):
        share, more = divmod(int(total) - int(counts.sum()), len(rows))
        counts[rows] += share
        counts[rows[:more]] += 1
    return counts


def _file_bytes(engine: Any, write: Any) -> int:
    """Return how many bytes faiss writes, without keeping them."""
    library: Any = faiss
    sizes: list[int] = []

    def count(block: bytes) -> int:
        sizes.append(len(block))
        return len(block)

    write(engine, library.PyCallbackIOWriter(count))
    return sum(sizes)
