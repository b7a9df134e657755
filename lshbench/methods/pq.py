"""Product quantisation: parts of a vector, each replaced by the nearest of 256 centroids.

Jegou, Douze, Schmid, Product quantization for nearest neighbor search, TPAMI 2011.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import faiss
import numpy as np

from lshbench.methods.codebooks import ENTRIES, CodebookQuantiser
from lshbench.methods.quantiser import checked


class ProductQuantiser(CodebookQuantiser):
    """A centroid's number, one byte, for each of ``bits / 8`` parts of the reduced features.

    Args:
        bits: stored for an item, a multiple of 8.
        seed: of the training items drawn, the rotation and the first centroids.
        dim: numbers that an item is reduced to, a multiple of ``bits / 8``; ``auto``: as many as bits, at most what the
            training items have.
        max_points: training items that everything is learnt from, drawn by the seed.
    """

    def __init__(self, *, bits: int, seed: int = 0, dim: int | str = "auto", max_points: int = 20_000) -> None:
        super().__init__(bits, seed, dim, max_points)

    def _new(self) -> Any:
        quantiser: Any = faiss.ProductQuantizer(self.dim, self.bytes, 8)
        quantiser.cp.seed = 1 + self.seed % (1 << 30)
        quantiser.cp.min_points_per_centroid = 1  # or it warns
        return quantiser

    def _train(self, vectors: np.ndarray) -> None:
        self._quantiser = self._new()
        self._quantiser.train(np.ascontiguousarray(vectors))

    @cached_property
    def _addends(self) -> np.ndarray:
        return self._apart()

    def _learnt(self) -> dict[str, np.ndarray]:
        shape = (self.bytes, ENTRIES, self.dim // self.bytes)
        return {"centroids": faiss.vector_to_array(self._quantiser.centroids).reshape(shape)}

    def _relearn(self, state: dict[str, np.ndarray]) -> None:
        if self.dim % self.bytes:
            raise ValueError(f"{self.dim} numbers in {self.bytes} parts")
        centroids = checked(state, "centroids", (self.bytes, ENTRIES, self.dim // self.bytes))
        self._quantiser = self._new()
        faiss.copy_array_to_vector(centroids.ravel(), self._quantiser.centroids)
