"""Local search quantisation: codebook vectors whose sum is improved by changing one at a time.

Martinez, Zakhmi, Hoos, Little, LSQ++: lower running time and higher recall in multi-codebook quantization, ECCV 2018.
"""

from __future__ import annotations

from typing import Any

import faiss

from lshbench.methods.codebooks import AdditiveQuantiser
from lshbench.training.constraints import Count


class LocalSearchQuantiser(AdditiveQuantiser):
    """Sums of codebook vectors, chosen by local search, in parts of up to four codebooks.

    Args:
        bits, seed, dim, max_points: as for :class:`lshbench.methods.pq.ProductQuantiser`; ``dim`` is a multiple of the
            number of parts.
        iterations: of learning codes and codebooks in turn.
        searches: local searches from disturbed codes for an item, in each iteration and when it is encoded.
    """

    most_books = 4
    iterations: Count
    searches: Count

    def __init__(
        self,
        *,
        bits: int,
        seed: int = 0,
        dim: int | str = "auto",
        max_points: int = 20_000,
        iterations: int = 8,
        searches: int = 4,
    ) -> None:
        self.iterations = iterations
        self.searches = searches
        super().__init__(bits, seed, dim, max_points)

    def _make(self) -> Any:
        quantiser = faiss.LocalSearchQuantizer(self.dim // self.parts, self.books, 8)
        quantiser.random_seed = 1 + self.seed % (1 << 30)
        quantiser.train_iters = self.iterations
        quantiser.nperts = min(quantiser.nperts, self.books)  # as training sets it, which a restored one has not had
        quantiser.train_ils_iters = quantiser.encode_ils_iters = self.searches
        return quantiser
