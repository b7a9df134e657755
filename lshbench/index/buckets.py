"""Multi-probe hash tables over a code's bits, whose candidates are ranked by an exact distance.

A gallery item is in one bucket of each table; a query probes its own bucket of each, and with ``probes`` above 1 also
those that it missed by the smallest margins.  Its candidates are ranked, each once; other items are never retrieved.

The probing sequence is that of Lv, Josephson, Wang, Charikar, Li, Multi-probe LSH, VLDB 2007, section 4.3: the score of
a bucket is the sum of the squared margins (a query's real-valued projections) of the bits in which its key differs from
the query's.  Over all tables together the ``(probes - 1) * tables`` buckets of the lowest score are probed, empty
ones included.  For queries without projections the score is the number of differing bits.

Kernels are in :mod:`lshbench.kernels.probes`, :mod:`lshbench.kernels.rescoring` and :mod:`lshbench.kernels.buckets`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from threading import Lock
from typing import Self

import numpy as np
from numba import get_num_threads

from lshbench.errors import wrong_value
from lshbench.index.base import Index, Ranking, query_values
from lshbench.index.candidates import (
    BLOCK_CANDIDATES,
    TOGETHER,
    plain_rows,
    row_words,
    search_order,
    writable_view,
)
from lshbench.index.files import (
    MOST_DIMENSIONS,
    MOST_PROBES,
    check_features,
    check_inverse_norms,
    check_number,
    open_array,
    open_description,
    open_rows_of_words,
    save_arrays,
    save_description,
)
from lshbench.index.tables import (
    LONGEST_KEY,
    BucketTables,
    check_key_bits,
    consecutive_bits,
    default_key_bits,
    draw_subsets,
)
from lshbench.kernels import buckets as kernels
from lshbench.kernels import rescoring
from lshbench.kernels.frames import Frame
from lshbench.ranking.cosine import VectorGallery
from lshbench.ranking.lists import list_blocks, query_blocks
from lshbench.types import MOST_BITS, CodeKind, Encoded, Neighbors, RankedBlock, Relevance, Side

RESCORE = {"cosine": rescoring.COSINE, "hamming": rescoring.HAMMING, "embedding": rescoring.EMBEDDING}
RANKINGS: dict[str, list[Ranking]] = {
    "cosine": ["cosine"],
    "hamming": ["hamming"],
    "embedding": ["cosine", "asymmetric"],
}
OTHERS = {"cosine": " (asymmetric with index.rescore=embedding)", "hamming": "", "embedding": ""}
DRAWS = ("subsets", "disjoint")


@dataclass(frozen=True)
class _Single:
    """A prepared search of single queries for ``k`` results each."""

    k: int
    searched: Frame[kernels.SearchedIndex]
    frame: Frame[kernels.SingleSearch]


class BucketsIndex(Index):
    """L hash tables over subsets of a code's bits.

    Args:
        tables: number of tables, or a list of numbers: as many as the largest are built, the first ones probed.
        bits_per_table: bits that make a bucket key; ``auto`` is about log2(n) - 4, or 16 items a bucket if they are
            spread evenly.
        probes: buckets that a query probes, as a multiple of the tables; or a list of numbers.
        draw: ``subsets`` (each table reads its own random choice of the code's bits) or ``disjoint`` (consecutive
            bits, none twice).
        rescore: ``cosine`` of the original features, ``hamming`` distance of whole codes, or ``embedding``: the cosine
            of the query's projections and the item's code of -1 and 1 (asymmetric similarity, which needs only the
            codes of the gallery), or with ``ranking=asymmetric``, which orders them alike, the asymmetric distance.
        shortlist: with ``rescore=cosine``, how many candidates are rescored, those nearest by Hamming distance (ties by
            the smaller row), or a list of numbers; all by default.  The others count as compared, not as retrieved.
        seed: decides the subsets.
        bits: the code's length, if known, so that keys too long for it are refused before any work.
        gives, ranking: see :class:`lshbench.index.base.Index`.
    """

    option = "buckets"
    takes = frozenset({"binary"})
    _tables: BucketTables
    _code_bits: int
    _dimensions: int
    _vectors: np.ndarray
    _searched: Frame[kernels.SearchedIndex]

    def __init__(
        self,
        *,
        tables: int | list[int] = 8,
        bits_per_table: int | str = "auto",
        probes: int | list[int] = 1,
        draw: str = "subsets",
        rescore: str = "cosine",
        shortlist: int | list[int] | None = None,
        seed: int = 0,
        bits: int | None = None,
        gives: CodeKind = "binary",
        ranking: str = "auto",
    ) -> None:
        self.tables = query_values("index.tables", tables)
        self.probes = query_values("index.probes", probes)
        check_key_bits("index.bits_per_table", bits_per_table)
        if draw not in DRAWS:
            raise wrong_value("index.draw", draw, " or ".join(DRAWS))
        if rescore not in RESCORE:
            raise wrong_value("index.rescore", rescore, ", ".join(RESCORE))
        if shortlist is not None and rescore != "cosine":
            raise wrong_value("index.shortlist", shortlist, f"null with index.rescore={rescore}, which is no cosine")
        self.shortlists = [] if shortlist is None else query_values("index.shortlist", shortlist)
        self.bits_per_table, self.draw, self.rescore, self.seed = bits_per_table, draw, rescore, seed
        super().__init__(gives, ranking)
        self._kind = rescoring.ASYMMETRIC if self.ranking == "asymmetric" else RESCORE[rescore]
        self._scaled = False
        self._lock = Lock()
        self._single: _Single | None = None
        self._built = False
        self.set_point(self.points()[-1])
        if bits is not None:
            self._table_bits(bits, 1)

    def rankings(self) -> list[Ranking]:
        return RANKINGS[self.rescore]

    def ranked_by(self) -> str:
        return f" and index.rescore={self.rescore}" + OTHERS[self.rescore]

    def points(self) -> list[dict[str, int]]:
        values = {"tables": self.tables, "probes": self.probes, "shortlist": self.shortlists}
        names = [name for name, own in values.items() if own]
        return [dict(zip(names, point, strict=True)) for point in product(*(values[name] for name in names))]

    def set_point(self, point: Mapping[str, int]) -> None:
        """Search at one of :meth:`points` from now on, or at another one with fewer tables.

        Raises:
            ValueError: more tables than there are, a number below 1, or a shortlist where the index was made for none.
        """
        if point["tables"] > self.tables[-1]:
            raise ValueError(f"{point['tables']} tables of {self.tables[-1]}")
        if ("shortlist" in point) != bool(self.shortlists) or min(point.values()) < 1:
            raise ValueError(f"{dict(point)}: expected values of at least 1 for {', '.join(self.points()[0])}")
        self._point = (point["tables"], point["probes"], point.get("shortlist", 0))
        if self._built:
            self._searched = self._at_point(self._searched.held.gallery)

    @property
    def ranks_features(self) -> bool:
        return self.rescore == "cosine"

    def ranked_by_code(self, oversample: object) -> Index:
        if self.rescore != "cosine":
            return self
        if self.shortlists:
            right = "null with index.oversample, which says how many candidates are compared by cosine"
            raise wrong_value("index.shortlist", self.shortlists, right)
        keys = ("tables", "bits_per_table", "probes", "draw", "seed")
        return BucketsIndex(rescore="hamming", **{key: getattr(self, key) for key in keys})

    @property
    def code_ranking(self) -> Ranking:
        return "asymmetric" if self.rescore == "embedding" else "hamming"

    def needs_projections(self, side: Side) -> bool:
        return side == "query" and (self.probes[-1] > 1 or self.rescore == "embedding")

    def _table_bits(self, bits: int, items: int) -> int:
        """Return the length of a bucket key; refuse one too long for the code."""
        tables, given = self.tables[-1], self.bits_per_table
        limit = bits // tables if self.draw == "disjoint" else bits
        if limit < 1:
            raise wrong_value("index.tables", tables, f"at most {bits} with index.draw=disjoint, the number of bits")
        if given == "auto":
            return default_key_bits(items, limit)
        size = int(given)
        if size > limit:
            share = f" / {tables} tables, as index.draw=disjoint reads no bit twice" if self.draw == "disjoint" else ""
            raise wrong_value("index.bits_per_table", size, f"at most {limit}: {bits} bits of the code{share}")
        return size

    def build(self, gallery: Encoded) -> Self:
        codes = gallery.binary
        tables, size = self.tables[-1], self._table_bits(codes.bits, len(codes))
        if self.draw == "disjoint":
            columns = consecutive_bits(tables, size)
        else:
            columns = draw_subsets(codes.bits, tables, size, self.seed)
        self._code_bits, self._dimensions = codes.bits, gallery.features.shape[1]
        self._tables = BucketTables.empty(columns, len(codes)).with_items(codes)
        self._set_gallery(self._rescored(gallery))
        return self

    def add(self, items: Encoded) -> Self:
        """Add gallery items, whose rows follow the present ones.

        All tables are copied, and with ``rescore=cosine`` so are all vectors, in memory: add many items at a time.

        Raises:
            ValueError: codes or vectors of another length than the present ones.
        """
        codes = items.binary
        self._check_widths(items)
        parts = zip(self._searched.held.gallery[:3], self._rescored(items), strict=True)
        self._tables = self._tables.with_items(codes)
        self._set_gallery([np.concatenate(pair) for pair in parts])
        return self

    def _rescored(self, items: Encoded) -> list[np.ndarray]:
        """Return what rescoring reads of items: vectors and inverse norms, codes as words; what it doesn't is empty."""
        words = row_words(items.binary) if self._reads_codes else np.empty((0, 0), np.uint64)
        if self.rescore != "cosine":
            return [np.empty((0, 0), np.float32), np.empty(0, np.float32), words]
        return [*self._with_norms(items.features), words]

    def _with_norms(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return vectors and inverse norms."""
        found = VectorGallery.from_vectors(vectors)
        # Products with extreme vectors would overflow: their galleries are copied, at length 1.
        self._scaled |= bool(found.scaled)
        return found.rows(0, len(found)) if found.scaled else found.vectors, found.inverse_norms

    @property
    def _reads_codes(self) -> bool:
        return self.rescore != "cosine" or bool(self.shortlists)

    def _set_gallery(self, arrays: list[np.ndarray]) -> None:
        self._vectors, inverse_norms, words = arrays
        single = self._kind == rescoring.HAMMING and self.tables[0] == 1
        ordered = np.ascontiguousarray(words[self._tables.ids[0]].T) if single else np.empty((0, 0), np.uint64)
        vectors = writable_view(self._vectors)
        gallery = rescoring.Gallery(vectors, inverse_norms, words, words.view(np.uint8), ordered)
        self._searched = self._at_point(gallery)
        self._built = True

    def _at_point(self, gallery: rescoring.Gallery) -> Frame[kernels.SearchedIndex]:
        """Return the index as kernels read it; a change makes a new one, so that a search in progress keeps its own."""
        used, probes, shortlist = self._point
        tables = self._tables.searched(used, probes)
        shortlist = min(shortlist, len(self))
        return Frame.of(kernels.SearchedIndex(tables, gallery, self._kind, probes, shortlist))

    def _check_widths(self, items: Encoded) -> None:
        bits, dimensions = items.binary.bits, items.features.shape[1]
        if bits != self._code_bits:
            raise ValueError(f"codes of {bits} bits for tables over codes of {self._code_bits}")
        if self._kind == rescoring.COSINE and dimensions != self._dimensions:
            raise ValueError(f"vectors of {dimensions} dimensions for a gallery of {self._dimensions}")

    def __len__(self) -> int:
        return self._tables.items

    def search(self, queries: Encoded, k: int) -> Neighbors:
        if k < 1:
            raise ValueError(f"k={k}: expected at least 1")
        searched = self._searched
        arrays = self._arrays(queries, searched.held.probes)
        number = len(arrays.codes)
        found = np.empty((number, k), np.int64), np.empty((number, k), np.float32), np.empty(number, np.int64)
        if number == 1:
            self._search_one(searched, arrays, k, *found)
        elif number:
            _refuse(max(kernels.search(searched, arrays, search_order(arrays.codes), *found)))
        return Neighbors(*found)

    def _search_one(
        self,
        searched: Frame[kernels.SearchedIndex],
        query: rescoring.Queries,
        k: int,
        ids: np.ndarray,
        nearest: np.ndarray,
        candidates: np.ndarray,
    ) -> None:
        """Search one query on this thread, or on all of them where it has many candidates."""
        with self._lock:  # the scratch memory serves one at a time
            single = self._single
            gallery, shortlist = searched.held.gallery, searched.held.shortlist
            if single is None or single.searched is not searched or single.k != k:
                widths = gallery.vectors.shape[1], query.codes.shape[1]
                scratch = rescoring.make_scratch(self._kind, len(self), max(k, shortlist), *widths)
                frame = Frame.of(kernels.SingleSearch(searched.held, scratch))
                single = self._single = _Single(k, searched, frame)
            state = kernels.search_single(single.frame.numbers, TOGETHER, *query, ids, nearest, candidates)
            if state:
                _refuse(0 if state < 0 else -1)
                scratch = single.frame.held.scratch
                count = min(candidates[0], shortlist) if shortlist else candidates[0]
                found, distances = scratch.found[:count], scratch.distances[:count]
                rescoring.cosine_distances_parallel(
                    scratch.unit, found, gallery.vectors, gallery.inverse_norms, 4 * get_num_threads(), distances
                )
                kernels.nearest_of_known(found, distances, scratch.room, ids[0], nearest[0])

    def rank(self, queries: Encoded, relevance: Relevance, *, positions: int | None = None) -> Iterator[RankedBlock]:
        bits = self._code_bits if self.rescore == "hamming" else None
        for start, stop, offsets, rows, distances in self.candidates(queries):
            part = relevance.rows(start, stop)
            yield from list_blocks(offsets, rows, distances, part, positions=positions, bits=bits)

    def candidates(self, queries: Encoded) -> Iterator[tuple[int, int, np.ndarray, np.ndarray, np.ndarray]]:
        """Yield candidates (the shortlist, if there is one) in no particular order, a block of queries at a time.

        Yields:
            The first query and the one past the last; where each query's candidates begin, int64 ``(q + 1,)``; gallery
            rows, int32 ``(candidates,)``; distances, float32 ``(candidates,)``.
        """
        searched = self._searched
        arrays = self._arrays(queries, searched.held.probes)
        counts = np.zeros(len(queries), np.int64)
        kernels.count_candidates(searched, arrays, search_order(arrays.codes), counts)
        for start, stop in query_blocks(counts, BLOCK_CANDIDATES):
            offsets = np.concatenate([[0], np.cumsum(counts[start:stop])])
            rows = np.empty(offsets[-1], np.int32)
            distances = np.empty(offsets[-1], np.float32)
            own = rescoring.Queries(*(array[start:stop] for array in arrays))
            order = search_order(own.codes)
            _refuse(max(kernels.fill_candidates(searched, own, order, offsets, rows, distances)), start)
            yield start, stop, offsets, rows, distances

    def _arrays(self, queries: Encoded, probes: int) -> rescoring.Queries:
        """Return queries as kernels take them."""
        self._check_widths(queries)
        codes, projections = queries.binary.packed, queries.binary.projections
        unread = _UNREAD if len(codes) == 1 else np.empty((len(codes), 0), np.float32)
        if self.rescore == "embedding":
            projections = queries.projections
        directed = probes > 1 or self.rescore == "embedding"
        return rescoring.Queries(
            plain_rows(codes),
            plain_rows(projections) if directed and projections is not None else unread,
            plain_rows(queries.features) if self._kind == rescoring.COSINE else unread,
        )

    @property
    def bytes(self) -> int:
        """Bytes of the tables in use, and of the codes or norms that rescoring reads."""
        gallery, used = self._searched.held.gallery, self._searched.held.tables.used
        ordered = gallery.ordered_words.nbytes if used == 1 else 0
        return self._tables.bytes(used) + gallery.inverse_norms.nbytes + gallery.words.nbytes + ordered

    @property
    def code_bytes(self) -> int:
        return len(self) * ((self._code_bits + 7) // 8) if self._reads_codes else 0

    @property
    def feature_bytes(self) -> int:
        return self._vectors.nbytes

    def save(self, folder: Path) -> None:
        """Write the tables' arrays, ``inverse_norms.npy`` or ``words.npy`` or both, and ``index.json`` last."""
        gallery = self._searched.held.gallery
        arrays = {"inverse_norms.npy": gallery.inverse_norms} if self.rescore == "cosine" else {}
        if self._reads_codes:
            arrays["words.npy"] = gallery.words
        keys = {name: getattr(self, name) for name in ("ranking", "tables", "probes", "draw", "rescore", "seed")}
        keys |= {"bits": self._code_bits, "bits_per_table": self._tables.columns.shape[1]}
        description = {
            "index": self.option,
            "items": len(self),
            "dim": self._dimensions,
            "scaled": self._scaled,
            "shortlist": self.shortlists or None,
            "files": self._tables.save(folder) + save_arrays(folder, arrays),
        }
        save_description(folder, description | keys)

    @classmethod
    def open(cls, folder: Path, features: np.ndarray | None = None) -> Self:
        described = open_description(folder, cls.option)
        keys = ("tables", "bits_per_table", "probes", "draw", "rescore", "shortlist", "seed", "bits", "ranking")
        index = cls(**{key: described[key] for key in keys})
        items, bits = described["items"], check_number(described, "bits", MOST_BITS)
        if index.tables[-1] * index.probes[-1] > MOST_PROBES:
            raise ValueError(f"{index.tables[-1]} tables with {index.probes[-1]} probes")
        index._code_bits, index._dimensions = bits, check_number(described, "dim", MOST_DIMENSIONS)
        size = check_number(described, "bits_per_table", LONGEST_KEY)
        index._tables = BucketTables.open(folder, index.tables[-1], size, items, bits)
        words = np.empty((0, 0), np.uint64)
        if index._reads_codes:
            words = open_rows_of_words(folder / "words.npy", bits, items)
        if index.rescore != "cosine":
            index._set_gallery([np.empty((0, 0), np.float32), np.empty(0, np.float32), words])
            return index
        vectors = check_features(features, described)
        norms = open_array(folder / "inverse_norms.npy", np.float32, (items,))
        check_inverse_norms("inverse_norms.npy", norms)
        held = index._with_norms(vectors) if described["scaled"] else (vectors, norms)
        index._set_gallery([*held, words])
        return index


_UNREAD = np.empty((1, 0), np.float32)
"""Placeholder for an array of a single query that isn't read."""


def _refuse(row: int, first: int = 0) -> None:
    if row >= 0:
        raise ValueError(f"query vectors hold NaN or infinite values; one of them is row {first + row}")
