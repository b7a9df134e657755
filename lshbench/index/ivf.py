"""Inverted lists: the gallery by cluster, of which a query probes the nearest few.

Jegou, Douze, Schmid, Product quantization for nearest neighbor search, TPAMI 2011, section 4 (IVF), with
exact cosine of the original features inside the lists.  Clusters are those of a method that gives them (``kmeans``);
with ``method=none`` the index finds its own, by spherical k-means (faiss) over the gallery's features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np

from lshbench.errors import wrong_value
from lshbench.index.base import Index, Ranking, query_values
from lshbench.index.files import (
    MOST_ITEMS,
    check_features,
    check_inverse_norms,
    check_number,
    check_offsets,
    check_range,
    check_rows,
    open_array,
    open_description,
    save_arrays,
    save_description,
)
from lshbench.ranking.cosine import VectorGallery
from lshbench.ranking.lists import list_blocks, list_neighbors, query_blocks
from lshbench.types import Clusters, CodeKind, Encoded, Neighbors, RankedBlock, Relevance

OFFSETS, IDS, NORMS, CENTROIDS = "offsets.npy", "ids.npy", "inverse_norms.npy", "centroids.npy"

BLOCK_CANDIDATES = 1 << 24
"""Candidates whose distances are held at a time: bounds memory at a few hundred MB."""

GATHER_ROWS = 8192
"""Gallery vectors copied together at a time."""

TILE = 16
"""Gallery vectors of a matrix product are padded to a multiple of this, so that BLAS rounds all columns alike."""

TRAINING_ITEMS = 256
"""Most gallery items a cluster that the index's own k-means is trained on: faiss's default."""


class IvfIndex(Index):
    """Inverted lists, ranked by cosine of the original features; items of other lists are never retrieved.

    Gallery vectors are not copied, as they may be a memory map: only row numbers are grouped by cluster.

    Args:
        nprobe: clusters that a query probes, nearest first; or a list of such numbers.
        clusters: how many the method has, if known, so that a greater ``nprobe`` is refused before any work; or how
            many the index finds itself with ``method=none``.
        seed: of the index's own clusters.
        gives, ranking: see :class:`lshbench.index.base.Index`.
    """

    option = "ivf"
    takes = frozenset({"clusters", "nothing"})
    gallery: VectorGallery
    ids: np.ndarray
    offsets: np.ndarray
    centroids: np.ndarray | None = None
    _quantizer: Any

    def __init__(
        self,
        *,
        nprobe: int | list[int] = 1,
        clusters: int | None = None,
        seed: int = 0,
        gives: CodeKind = "clusters",
        ranking: str = "auto",
    ) -> None:
        super().__init__(gives, ranking)
        self.nprobes = query_values("index.nprobe", nprobe)
        self.set_point(self.points()[-1])
        self.clusters, self.seed = clusters, seed
        if clusters is None and gives == "nothing":
            raise wrong_value("index.clusters", None, "a number of clusters, as there is no method that has any")
        if clusters is not None:
            if clusters < 1:
                raise wrong_value("index.clusters", clusters, "at least 1")
            self._check_nprobe(clusters)

    def _check_nprobe(self, clusters: int) -> None:
        most = self.nprobes[-1]
        if most > clusters:
            raise wrong_value("index.nprobe", most, f"at most {clusters}, the number of clusters")

    def points(self) -> list[dict[str, int]]:
        return [{"nprobe": nprobe} for nprobe in self.nprobes]

    def set_point(self, point: Mapping[str, int]) -> None:
        self.nprobe = point["nprobe"]

    def rankings(self) -> list[Ranking]:
        return ["cosine"]

    @property
    def ranks_features(self) -> bool:
        return True

    def __len__(self) -> int:
        return len(self.ids)

    def build(self, gallery: Encoded) -> Self:
        if isinstance(gallery.codes, Clusters):
            clusters = gallery.codes.numbers[:, 0]
        else:
            self._set_centroids(self._find_centroids(gallery.features))
            clusters = self._nearest_clusters(gallery.features, 1)[:, 0]
        self.gallery = VectorGallery.from_vectors(gallery.features)
        self.ids = np.argsort(clusters, kind="stable").astype(np.int32)
        self.offsets = np.concatenate([[0], np.cumsum(np.bincount(clusters))]).astype(np.int64)
        return self

    def _find_centroids(self, vectors: np.ndarray) -> np.ndarray:
        """Return the centroids of the index's own clusters, at length 1, float32 ``(clusters, d)``."""
        assert self.clusters is not None, "checked by the constructor"
        if self.clusters > len(vectors):
            raise wrong_value("index.clusters", self.clusters, f"at most {len(vectors)}, the items of the gallery")
        rows: slice | np.ndarray = slice(None)
        if (most := TRAINING_ITEMS * self.clusters) < len(vectors):
            generator = np.random.default_rng(self.seed)
            rows = np.sort(generator.choice(len(vectors), most, replace=False))
        points = directions(vectors[rows])
        clustering = faiss.Clustering(vectors.shape[1], self.clusters)
        clustering.seed, clustering.spherical = self.seed, True
        clustering.min_points_per_centroid = 1  # with its default, faiss warns of fewer
        clustering.train(points, faiss.IndexFlatIP(points.shape[1]))
        return faiss.vector_to_array(clustering.centroids).reshape(self.clusters, -1)

    def _set_centroids(self, centroids: np.ndarray) -> None:
        self.centroids = centroids
        self._quantizer = faiss.IndexFlatIP(centroids.shape[1])
        self._quantizer.add(centroids)

    def _nearest_clusters(self, vectors: np.ndarray, count: int) -> np.ndarray:
        """Return the nearest of the index's own clusters, int32 ``(n, count)``, nearest first."""
        found = np.empty((len(vectors), count), np.int32)
        for start in range(0, len(vectors), GATHER_ROWS):
            rows = slice(start, start + GATHER_ROWS)
            found[rows] = self._quantizer.search(directions(vectors[rows]), count)[1]
        return found

    def search(self, queries: Encoded, k: int) -> Neighbors:
        results = Neighbors.unfilled(np.zeros(len(queries), np.int64), k)
        for start, stop, offsets, rows, distances in self._lists(queries):
            found = list_neighbors(offsets, rows, distances, k)
            results.ids[start:stop], results.distances[start:stop] = found.ids, found.distances
            results.candidates[start:stop] = found.candidates
        return results

    def rank(self, queries: Encoded, relevance: Relevance, *, positions: int | None = None) -> Iterator[RankedBlock]:
        for start, stop, offsets, rows, distances in self._lists(queries):
            yield from list_blocks(offsets, rows, distances, relevance.rows(start, stop), positions=positions)

    def _lists(self, queries: Encoded) -> Iterator[tuple[int, int, np.ndarray, np.ndarray, np.ndarray]]:
        """Yield queries' candidates, a block of queries at a time.

        Yields:
            The first query and the one past the last; where each query's candidates begin, int64 ``(q + 1,)``; gallery
            rows, int32 ``(candidates,)``; distances (1 - cosine), float32 ``(candidates,)``.
        """
        if isinstance(queries.codes, Clusters):
            self._check_nprobe(queries.codes.numbers.shape[1])
            probes = queries.codes.numbers[:, : self.nprobe]
        else:
            assert self.centroids is not None
            self._check_nprobe(len(self.centroids))
            probes = self._nearest_clusters(queries.features, self.nprobe)
        # Clusters after the last one that has members have no entry in `offsets`.
        last = len(self.offsets) - 1
        counts = np.diff(self.offsets, append=self.offsets[-1])
        sizes = counts[np.minimum(probes, last)]
        found = sizes.sum(axis=1)
        for start, stop in query_blocks(found, BLOCK_CANDIDATES):
            block = slice(start, stop)
            offsets = np.concatenate([[0], np.cumsum(found[block])])
            yield start, stop, offsets, *self._distances(queries.features[block], probes[block], sizes[block])

    def _distances(self, queries: np.ndarray, probes: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and distances of all candidates, query by query, in the order of their probes.

        One matrix product for each cluster and all the queries that probe it.
        """
        begins = (np.cumsum(sizes) - sizes.ravel()).astype(np.int64)
        rows = np.empty(int(sizes.sum()), np.int32)
        distances = np.empty(len(rows), np.float32)
        units = directions(queries)
        visits = np.flatnonzero(sizes.ravel())
        visits = visits[np.argsort(probes.ravel()[visits], kind="stable")]
        firsts = np.flatnonzero(np.diff(probes.ravel()[visits], prepend=-1))
        for visit in np.split(visits, firsts)[1:]:
            cluster = probes.ravel()[visit[0]]
            members = self.ids[self.offsets[cluster] : self.offsets[cluster + 1]]
            visitors = units[visit // probes.shape[1]]
            for first in range(0, len(members), GATHER_ROWS):
                part = members[first : first + GATHER_ROWS]
                cosines = (visitors @ self._gather(part).T)[:, : len(part)]
                cosines *= self.gallery.inverse_norms[part]
                places = begins[visit, None] + (first + np.arange(len(part)))
                distances[places] = 1 - cosines
                rows[places] = part
        return rows, distances

    def _gather(self, rows: np.ndarray) -> np.ndarray:
        """Return gallery vectors, padded with zeros to whole tiles.

        Products round the columns of an incomplete tile differently, which would tell equal vectors apart.
        """
        vectors = self.gallery.vectors
        gathered = np.empty((-(-len(rows) // TILE) * TILE, vectors.shape[1]), np.float32)
        gathered[len(rows) :] = 0
        # With another mode, `take` fills a copy first.
        inside = np.take(vectors, rows, axis=0, out=gathered[: len(rows)], mode="clip")
        if self.gallery.scaled:
            inside[:] = directions(inside)
        return gathered

    @property
    def bytes(self) -> int:
        return self.ids.nbytes + self.gallery.inverse_norms.nbytes + self.fixed_bytes

    @property
    def fixed_bytes(self) -> int:
        return self.offsets.nbytes + (0 if self.centroids is None else self.centroids.nbytes)

    @property
    def feature_bytes(self) -> int:
        return self.gallery.vectors.nbytes

    def save(self, folder: Path) -> None:
        """Write ``offsets.npy``, ``ids.npy``, ``inverse_norms.npy``, own ``centroids.npy``, and ``index.json`` last."""
        arrays = {OFFSETS: self.offsets, IDS: self.ids, NORMS: self.gallery.inverse_norms}
        if self.centroids is not None:
            arrays[CENTROIDS] = self.centroids
        save_description(
            folder,
            {
                "index": self.option,
                "gives": self.gives,
                "ranking": self.ranking,
                "items": len(self.ids),
                "dim": self.gallery.vectors.shape[1],
                "clusters": len(self.offsets) - 1,
                "own_clusters": self.clusters,
                "nprobe": self.nprobes,
                "scaled": bool(self.gallery.scaled),
                "files": save_arrays(folder, arrays),
            },
        )

    @classmethod
    def open(cls, folder: Path, features: np.ndarray | None = None) -> Self:
        description = open_description(folder, cls.option)
        gallery = check_features(features, description)
        items = description["items"]
        index = cls(nprobe=description["nprobe"], clusters=description["own_clusters"], gives=description["gives"])
        norms = open_array(folder / NORMS, np.float32, (items,))
        index.gallery = VectorGallery(gallery, check_inverse_norms(NORMS, norms), bool(description["scaled"]))
        index.ids = check_rows(IDS, open_array(folder / IDS, np.int32, (items,)), items)
        offsets = open_array(folder / OFFSETS, np.int64, (check_number(description, "clusters", MOST_ITEMS) + 1,))
        index.offsets = check_offsets(OFFSETS, offsets, items)
        if index.gives == "nothing":
            assert index.clusters is not None, "checked by the constructor"
            centroids = open_array(folder / CENTROIDS, np.float32, (index.clusters, gallery.shape[1]))
            index._set_centroids(check_range(CENTROIDS, centroids, -2, 2))  # they are of length 1
        return index


def directions(vectors: np.ndarray) -> np.ndarray:
    """Return vectors at length 1, float32 ``(n, d)``, in new memory; zero vectors stay zero."""
    found = np.zeros(vectors.shape, np.float32)
    for start in range(0, len(vectors), GATHER_ROWS):
        rows = slice(start, start + GATHER_ROWS)
        norms = np.sqrt(np.einsum("ij,ij->i", vectors[rows], vectors[rows], dtype=np.float64))[:, None]
        found[rows] = np.divide(vectors[rows], norms, out=np.zeros(vectors[rows].shape), where=norms > 0)
    return found
