"""Rescoring as people do it: more candidates than results are taken by code, and ranked by cosine of the features.

Stands around any index that ranks by codes.  For ``k`` results, ``oversample * k`` candidates come from that index, the
nearest by its own distance; these alone are compared by cosine and retrieved.  ``index=buckets`` also knows a fixed
number of candidates (``index.shortlist``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

import numpy as np
from numba import get_num_threads

from lshbench.errors import wrong_value
from lshbench.index.base import Index, Ranking, query_values
from lshbench.index.candidates import BLOCK_CANDIDATES, TOGETHER, plain_rows, writable_view
from lshbench.index.files import (
    MOST_DIMENSIONS,
    check_features,
    check_inverse_norms,
    check_number,
    open_array,
    open_description,
    save_arrays,
    save_description,
)
from lshbench.kernels.rescoring import (
    cosine_distances_of_lists,
    cosine_distances_of_lists_parallel,
    cosine_distances_parallel,
    scale_to_unit,
)
from lshbench.ranking.cosine import VectorGallery
from lshbench.ranking.lists import as_lists, list_blocks, list_neighbors
from lshbench.types import RESULTS, CodeKind, Encoded, Neighbors, RankedBlock, Relevance, Side

WITH = ("float32", "int8")
VECTORS, NORMS, DESCRIPTION = "rescored.npy", "rescored_inverse_norms.npy", "rescored.json"

BLOCK_ROWS = 8192
"""Vectors that are made bytes at a time."""


class OversampledIndex(Index):
    """Results of an index over codes, rescored by cosine of the features.

    Args:
        inner: the index that gives candidates.
        oversample: candidates rescored, as a multiple of the results asked for; or a list of such numbers.  A run asks
            for :data:`lshbench.types.RESULTS`.
        rescore_with: ``float32`` features as they are, or ``int8``: a byte a number, each vector scaled by its largest.
    """

    option = "oversampled"
    takes = frozenset[CodeKind]({"binary", "quantised", "nothing"})

    def __init__(self, inner: Index, oversample: int | list[int], rescore_with: str = "float32") -> None:
        self.values = query_values("index.oversample", oversample)
        if rescore_with not in WITH:
            raise wrong_value("index.rescore_with", rescore_with, " or ".join(WITH))
        self.inner, self.rescore_with = inner.ranked_by_code(oversample), rescore_with
        super().__init__(inner.gives)
        self.oversample = self.values[-1]

    def rankings(self) -> list[Ranking]:
        return ["cosine"]

    def points(self) -> list[dict[str, int]]:
        return [{**point, "oversample": value} for point in self.inner.points() for value in self.values]

    def set_point(self, point: Mapping[str, int]) -> None:
        self.oversample = point["oversample"]
        self.inner.set_point({name: value for name, value in point.items() if name != "oversample"})

    @property
    def ranks_features(self) -> bool:
        return self.rescore_with == "float32"

    @property
    def code_ranking(self) -> Ranking:
        return self.inner.code_ranking

    def needs_projections(self, side: Side) -> bool:
        return self.inner.needs_projections(side)

    def __len__(self) -> int:
        return len(self.inner)

    def build(self, gallery: Encoded) -> Self:
        self.inner.build(gallery)
        return self._with_vectors(*self._rescored_by(gallery.features))

    def around(self, inner: Index) -> OversampledIndex:
        """Return the same rescoring, by the same vectors, of another built index's results."""
        other = OversampledIndex(inner, self.oversample, self.rescore_with)
        return other._with_vectors(self._vectors, self._inverse_norms, self._scaled)

    def _rescored_by(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
        """Return the vectors to compare, their inverse norms, and whether they had to be scaled and so copied."""
        found = VectorGallery.from_vectors(features)
        if self.rescore_with == "int8":
            return *as_bytes(found), False
        return found.rows(0, len(found)) if found.scaled else found.vectors, found.inverse_norms, found.scaled

    def _with_vectors(self, vectors: np.ndarray, inverse_norms: np.ndarray, scaled: bool) -> Self:
        self._vectors, self._inverse_norms, self._scaled = vectors, inverse_norms, scaled
        return self

    def search(self, queries: Encoded, k: int) -> Neighbors:
        results = Neighbors.unfilled(np.zeros(len(queries), np.int64), k)
        for start, stop, candidates, offsets, rows, distances in self._candidates(queries, k):
            found = list_neighbors(offsets, rows, distances, k)
            results.ids[start:stop], results.distances[start:stop] = found.ids, found.distances
            results.candidates[start:stop] = candidates
        return results

    def rank(self, queries: Encoded, relevance: Relevance, *, positions: int | None = None) -> Iterator[RankedBlock]:
        # As many as a search asks for, of which some may be left out.
        asked = min(RESULTS + relevance.most_left_out, len(self))
        for start, stop, _, offsets, rows, distances in self._candidates(queries, asked):
            yield from list_blocks(offsets, rows, distances, relevance.rows(start, stop), positions=positions)

    def _candidates(
        self, queries: Encoded, k: int
    ) -> Iterator[tuple[int, int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """Yield rescored candidates for ``k`` results, a block of queries at a time.

        Yields:
            The first query and the one past the last; how many items each was compared with by code, int64 ``(q,)``;
            where each one's candidates begin, int64 ``(q + 1,)``; gallery rows, int32 ``(candidates,)``; distances
            (1 - cosine), float32 ``(candidates,)``.
        """
        if queries.features.shape[1] != self._vectors.shape[1]:
            raise ValueError(f"queries of {queries.features.shape[1]} numbers for vectors of {self._vectors.shape[1]}")
        most = min(self.oversample * k, len(self))
        step = max(1, BLOCK_CANDIDATES // most)
        for start in range(0, len(queries), step):
            block = queries[start : start + step]
            found = self.inner.search_for_rescoring(block, most)
            offsets, ids, distances = as_lists(found.distances, found.ids)
            rows = ids.astype(np.int32)
            self._rescore(plain_rows(block.features), offsets, rows, distances)
            yield start, start + len(block), found.candidates, offsets, rows, distances

    def _rescore(self, queries: np.ndarray, offsets: np.ndarray, rows: np.ndarray, distances: np.ndarray) -> None:
        """Fill in the distances of candidates."""
        vectors, norms = writable_view(self._vectors), self._inverse_norms
        if len(queries) == 1 and len(rows) * queries.shape[1] >= TOGETHER:
            unit = np.empty(queries.shape[1], np.float32)
            scale_to_unit(queries[0], unit)
            cosine_distances_parallel(unit, rows, vectors, norms, 2 * get_num_threads(), distances)
        elif len(rows) * queries.shape[1] < TOGETHER:
            cosine_distances_of_lists(queries, offsets, rows, vectors, norms, distances)
        else:
            cosine_distances_of_lists_parallel(queries, offsets, rows, vectors, norms, distances)

    @property
    def bytes(self) -> int:
        return self.inner.bytes + self._inverse_norms.nbytes

    @property
    def code_bytes(self) -> int:
        return self.inner.code_bytes

    @property
    def fixed_bytes(self) -> int:
        return self.inner.fixed_bytes

    @property
    def feature_bytes(self) -> int:
        return self._vectors.nbytes

    def save(self, folder: Path) -> None:
        """Write ``rescored_inverse_norms.npy``, int8 vectors if any (``rescored.npy``), and the inner index."""
        arrays = {NORMS: self._inverse_norms} | ({} if self.ranks_features else {VECTORS: self._vectors})
        description = {
            "index": self.option,
            "items": len(self),
            "dim": self._vectors.shape[1],
            "scaled": bool(self._scaled),
        }
        save_description(folder, description | {"files": save_arrays(folder, arrays)}, DESCRIPTION)
        self.inner.save(folder)

    @classmethod
    def open(cls, folder: Path, features: np.ndarray | None = None) -> Self:
        raise TypeError("reopened() knows the index inside")

    def reopened(self, folder: Path, features: np.ndarray | None = None) -> Self:
        found = type(self)(self.inner.reopened(folder, features), self.values, self.rescore_with)
        described = open_description(folder, self.option, DESCRIPTION)
        items, dim = described["items"], check_number(described, "dim", MOST_DIMENSIONS)
        if items != len(found):
            raise ValueError(f"{DESCRIPTION} is of {items} items, the index of {len(found)}")
        norms = check_inverse_norms(NORMS, open_array(folder / NORMS, np.float32, (items,)))
        if not self.ranks_features:
            return found._with_vectors(open_array(folder / VECTORS, np.int8, (items, dim)), norms, False)
        vectors = check_features(features, described)
        return found._with_vectors(*(found._rescored_by(vectors) if described["scaled"] else (vectors, norms, False)))


def as_bytes(gallery: VectorGallery) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors as int8 ``(n, d)``, each scaled so that its largest number is 127, and their inverse norms."""
    vectors = np.empty(gallery.vectors.shape, np.int8)
    inverse_norms = np.zeros(len(vectors), np.float32)
    for start in range(0, len(vectors), BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, len(vectors))
        block = gallery.rows(start, stop)
        largest = np.abs(block).max(axis=1, keepdims=True)
        vectors[start:stop] = np.rint(np.divide(127 * block, largest, out=np.zeros_like(block), where=largest > 0))
        norms = np.sqrt((vectors[start:stop].astype(np.float32) ** 2).sum(axis=1))
        inverse_norms[start:stop] = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
    return vectors, inverse_norms
