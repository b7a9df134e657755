"""Residual quantisation: every codebook quantises what the ones before it have left.

Chen, Guan, Wang, Approximate nearest neighbor search by residual vector quantization, Sensors 2010; codes are chosen by
a beam search.
"""

from __future__ import annotations

from typing import Any

import faiss

from lshbench.methods.codebooks import AdditiveQuantiser
from lshbench.training.constraints import Count


class ResidualQuantiser(AdditiveQuantiser):
    """Sums of codebook vectors, chosen one codebook after the other, in parts of up to eight codebooks.

    Args:
        bits, seed, dim, max_points: as for :class:`lshbench.methods.pq.ProductQuantiser`; ``dim`` is a multiple of the
            number of parts.
        beam: best sums that are kept from codebook to codebook.
    """

    most_books = 8
    beam: Count

    def __init__(
        self, *, bits: int, seed: int = 0, dim: int | str = "auto", max_points: int = 20_000, beam: int = 5
    ) -> None:
        self.beam = beam
        super().__init__(bits, seed, dim, max_points)

    def _make(self) -> Any:
        quantiser = faiss.ResidualQuantizer(self.dim // self.parts, self.books, 8)
        quantiser.train_type = faiss.ResidualQuantizer.Train_default
        quantiser.max_beam_size = self.beam
        quantiser.cp.seed = 1 + self.seed % (1 << 30)
        quantiser.cp.min_points_per_centroid = 1  # or it warns
        return quantiser
