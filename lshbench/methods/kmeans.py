"""k-means clusters as buckets: an item's code is the number of its nearest centroid.

Lloyd, Least squares quantization in PCM, 1982, by faiss, from first centroids by k-means++ (Arthur and
Vassilvitskii, SODA 2007), by scikit-learn; ``spherical`` is Dhillon and Modha, Concept
decompositions for large sparse text data using clustering, 2001.
"""

from __future__ import annotations

import logging
import math
from typing import Annotated, Any, Self

import faiss
import numpy as np

from lshbench.errors import wrong_value
from lshbench.methods.base import ENCODE_ROWS, Method
from lshbench.training.constraints import Constraint, Count, CountOrAll, check_fields
from lshbench.training.history import Epoch
from lshbench.types import Clusters, Features, Progress, Side

log = logging.getLogger(__name__)

SEEDING_POINTS = 50
"""Items a cluster that first centroids are drawn from: enough to find them, at a fraction of an iteration's cost."""


class KMeans(Method):
    """Clusters of the training features.

    ``history`` has, for the restart that was kept, each iteration's mean squared distance to the nearest
    centroid before the centroids move (``spherical``: 1 - mean cosine).

    Args:
        clusters: how many.
        iterations: at most this many a restart.
        tolerance: a restart ends when an iteration improves the objective by less than this share; 0: never.
        restarts: runs from different first centroids, the one with the best objective is kept.
        spherical: cluster directions by cosine instead of points by Euclidean distance.
        max_points_per_cluster: train on at most ``clusters`` times this many items, drawn by the seed; None
            takes all.
        seed: of the items drawn, and of the first centroids.
    """

    gives = "clusters"
    bits: int
    centroids: np.ndarray

    clusters: Count
    iterations: Count
    tolerance: Annotated[float, Constraint(lambda value: 0 <= value < 1, "0, or a small share such as 0.0001")]
    restarts: Count
    max_points_per_cluster: CountOrAll

    def __init__(
        self,
        *,
        clusters: int,
        iterations: int = 50,
        tolerance: float = 1e-4,
        restarts: int = 1,
        spherical: bool = False,
        max_points_per_cluster: int | None = None,
        seed: int = 0,
    ) -> None:
        self.clusters = clusters
        self.iterations = iterations
        self.tolerance = tolerance
        self.restarts = restarts
        self.spherical = spherical
        self.max_points_per_cluster = max_points_per_cluster
        self.seed = seed
        check_fields("method", self)
        self.bits = max(1, math.ceil(math.log2(clusters)))
        self.history = []

    def fit(self, train: Features, progress: Progress) -> Self:
        if len(train) < self.clusters:
            raise wrong_value("method.clusters", self.clusters, f"at most {len(train)}, the number of training items")
        generator = np.random.default_rng(self.seed)
        points = self._points(train.x, generator)
        best = math.inf
        description = f"finding {self.clusters} clusters"
        with progress(description, total=self.restarts * self.iterations, unit="iterations") as advance:
            for _ in range(self.restarts):
                first = self._first_centroids(points, generator)
                centroids, history = self._run(points, first, advance)
                if history[-1].loss < best:
                    best, self.centroids, self.history = history[-1].loss, centroids, history
        log.info("%d clusters after %d iterations, objective %.6g", self.clusters, len(self.history), best)
        return self

    def _points(self, x: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Return the items to learn from, float32 ``(m, d)``: ``x`` itself where it is taken as it is."""
        limit = len(x) if self.max_points_per_cluster is None else self.clusters * self.max_points_per_cluster
        if limit < len(x):
            x = x[np.sort(generator.choice(len(x), limit, replace=False))]
        return self._directions(x) if self.spherical else np.ascontiguousarray(x, np.float32)

    def _directions(self, x: np.ndarray) -> np.ndarray:
        directions = np.array(x, np.float32, order="C")
        norms = np.linalg.norm(directions, axis=1, keepdims=True)
        return np.divide(directions, norms, out=directions, where=norms > 0)

    def _first_centroids(self, points: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        from sklearn.cluster import kmeans_plusplus

        count = self.clusters * SEEDING_POINTS
        if count < len(points):
            points = points[np.sort(generator.choice(len(points), count, replace=False))]
        return kmeans_plusplus(points, self.clusters, random_state=int(generator.integers(2**31)))[0]

    def _run(self, points: np.ndarray, first: np.ndarray, advance: Any) -> tuple[np.ndarray, list[Epoch]]:
        """Return the centroids that Lloyd's iterations lead to from given ones, and the curve."""
        size = points.shape[1]
        centroids, history = first, []
        for iteration in range(1, self.iterations + 1):
            # One iteration a call, as faiss does inside, so that progress shows and converged runs end.
            step = faiss.Clustering(size, self.clusters)
            step.niter, step.nredo, step.spherical = 1, 1, self.spherical
            step.min_points_per_centroid, step.max_points_per_centroid = 1, len(points)
            faiss.copy_array_to_vector(np.ascontiguousarray(centroids).ravel(), step.centroids)
            step.train(points, self._index(size))
            centroids = faiss.vector_to_array(step.centroids).reshape(self.clusters, size)
            stats: Any = step.iteration_stats
            if stats.size() == 0:  # as many points as clusters: each is its own centroid
                history.append(Epoch(iteration, 0.0))
                advance(self.iterations - iteration + 1)
                break
            objective = stats.at(0).obj / len(points)
            loss = 1 - objective if self.spherical else objective
            history.append(Epoch(iteration, float(loss)))
            converged = len(history) > 1 and history[-2].loss - loss < self.tolerance * history[-2].loss
            if converged and self.tolerance:
                advance(self.iterations - iteration + 1)
                break
            advance(1)
        return centroids, history

    def _index(self, size: int) -> Any:
        return faiss.IndexFlatIP(size) if self.spherical else faiss.IndexFlatL2(size)

    def encode(self, x: np.ndarray, side: Side, *, projections: bool = False) -> Clusters:
        """Return an item's cluster (gallery), or all clusters, nearest first (queries)."""
        count = 1 if side == "gallery" else self.clusters
        index = self._index(self.centroids.shape[1])
        index.add(np.ascontiguousarray(self.centroids))
        clusters = np.empty((len(x), count), np.int32)
        for start in range(0, len(x), ENCODE_ROWS):
            rows = slice(start, start + ENCODE_ROWS)
            clusters[rows] = index.search(np.ascontiguousarray(x[rows], np.float32), count)[1]
        return Clusters(clusters)

    def state(self) -> dict[str, np.ndarray]:
        return {"centroids": self.centroids}

    def restore(self, state: dict[str, np.ndarray]) -> Self:
        if len(state["centroids"]) != self.clusters:
            raise ValueError(f"{len(state['centroids'])} centroids for a method of {self.clusters} clusters")
        self.centroids = state["centroids"]
        return self
