"""TurboQuant: after a random rotation, each number rounded to the levels that are best for a Gaussian.

Zandieh, Daliri, Hadian, Mirrokni, TurboQuant: online vector quantization with near-optimal distortion rate, 2025
(arXiv 2504.19874), the variant for the smallest squared error.  Nothing about an item is stored besides its numbers:
one factor scales all of them to a mean square length of 1, which the levels are made for.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated

import faiss
import numpy as np

from lshbench.methods.quantiser import checked
from lshbench.methods.scalars import RoundingQuantiser
from lshbench.training.constraints import Constraint

TYPES = {
    1: faiss.ScalarQuantizer.QT_1bit_tqmse,
    2: faiss.ScalarQuantizer.QT_2bit_tqmse,
    4: faiss.ScalarQuantizer.QT_4bit_tqmse,
    8: faiss.ScalarQuantizer.QT_8bit_tqmse,
}
Depth = Annotated[int, Constraint(lambda value: value in TYPES, "1, 2, 4 or 8")]

MOST_SCALE = 1e30
"""The largest factor: items that are next to equal have one that is far above those of others."""


class TurboQuantiser(RoundingQuantiser):
    """``bits / bits_per_dimension`` numbers of the reduced features, rounded to the levels of a Gaussian.

    Args:
        bits: stored for an item, a multiple of 8.
        seed: of the training items drawn and the rotation.
        bits_per_dimension: 1, 2, 4 or 8.
        dim: numbers that an item is reduced to: as many as fit.
        max_points: training items that mean, axes and scale are learnt from, drawn by the seed.
    """

    bits_per_dimension: Depth

    def __init__(
        self,
        *,
        bits: int,
        seed: int = 0,
        bits_per_dimension: int = 4,
        dim: int | str = "auto",
        max_points: int = 20_000,
    ) -> None:
        super().__init__(bits, seed, bits_per_dimension, dim, max_points)

    def _set_levels(self) -> None:
        # Nothing is learnt from the vector: the levels follow from the number of dimensions.
        self._quantiser = faiss.ScalarQuantizer(self.dim, TYPES[self.bits_per_dimension])
        self._quantiser.train(np.zeros((1, self.dim), np.float32))

    def _train(self, vectors: np.ndarray) -> None:
        square = np.einsum("ij,ij->", vectors, vectors, dtype=np.float64) / len(vectors)
        self.scale = np.array([1 / np.sqrt(square) if square > 0 else 1], np.float32)
        self._set_levels()

    def _compress(self, vectors: np.ndarray) -> np.ndarray:
        return super()._compress(vectors * self.scale)

    def _decompress(self, stored: np.ndarray) -> np.ndarray:
        return super()._decompress(stored) / self.scale

    @cached_property
    def _addends(self) -> np.ndarray:
        return self._apart()

    @property
    def codebook_bytes(self) -> int:
        """None: levels follow from the number of dimensions, and the scale is a part of encoding."""
        return 0

    def _learnt(self) -> dict[str, np.ndarray]:
        return {"scale": self.scale}

    def _relearn(self, state: dict[str, np.ndarray]) -> None:
        self.scale = checked(state, "scale", (1,), most=MOST_SCALE)
        if not self.scale[0] > 0:
            raise ValueError(f"scale is {self.scale[0]}, expected a positive number")
        self._set_levels()
