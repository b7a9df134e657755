"""Product quantisation after a learnt rotation.

Ge, He, Ke, Sun, Optimized product quantization, TPAMI 2014: the rotation and the centroids are learnt in turn, each for
the smallest quantisation error.
"""

from __future__ import annotations

import faiss
import numpy as np

from lshbench.methods.pq import ProductQuantiser
from lshbench.training.constraints import Count


class OptimisedProductQuantiser(ProductQuantiser):
    """Product quantiser of features that a learnt rotation has prepared.

    Args:
        bits, seed, dim, max_points: as for :class:`lshbench.methods.pq.ProductQuantiser`.
        iterations: of the alternation.
    """

    iterations: Count

    def __init__(
        self, *, bits: int, seed: int = 0, dim: int | str = "auto", max_points: int = 20_000, iterations: int = 10
    ) -> None:
        self.iterations = iterations
        super().__init__(bits=bits, seed=seed, dim=dim, max_points=max_points)

    def _train(self, vectors: np.ndarray) -> None:
        rotation = faiss.OPQMatrix(self.dim, self.bytes, self.dim)
        rotation.niter = self.iterations
        # The quantiser that is learnt in turn; handed over with its own settings, so that the seed decides it.
        rotation.pq = turn = self._new()
        rotation.train(np.ascontiguousarray(vectors))
        learnt = faiss.vector_to_array(rotation.A).reshape(self.dim, self.dim).T
        rotation.pq = None  # before `turn` is freed
        del turn
        self.weight = np.ascontiguousarray(self.weight @ learnt)
        super()._train(vectors @ learnt)
