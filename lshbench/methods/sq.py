"""Scalar quantisation: each number rounded to 256 or 16 levels between the smallest and the largest of training."""

from __future__ import annotations

from typing import Annotated

import faiss
import numpy as np

from lshbench.methods.quantiser import checked
from lshbench.methods.scalars import RoundingQuantiser
from lshbench.training.constraints import Constraint
from lshbench.types import HalfByteWeights, Terms

TYPES = {4: faiss.ScalarQuantizer.QT_4bit, 8: faiss.ScalarQuantizer.QT_8bit}
Depth = Annotated[int, Constraint(lambda value: value in TYPES, "4 or 8")]


class ScalarQuantiser(RoundingQuantiser):
    """``bits / bits_per_dimension`` numbers of the reduced features, rounded.

    Args:
        bits: stored for an item, a multiple of 8.
        seed: of the training items drawn and the rotation.
        bits_per_dimension: 4 or 8.
        dim: numbers that an item is reduced to: as many as fit.
        max_points: training items that everything is learnt from, drawn by the seed.
    """

    bits_per_dimension: Depth

    def __init__(
        self,
        *,
        bits: int,
        seed: int = 0,
        bits_per_dimension: int = 8,
        dim: int | str = "auto",
        max_points: int = 20_000,
    ) -> None:
        super().__init__(bits, seed, bits_per_dimension, dim, max_points)

    def _new(self) -> faiss.ScalarQuantizer:
        return faiss.ScalarQuantizer(self.dim, TYPES[self.bits_per_dimension])

    def _train(self, vectors: np.ndarray) -> None:
        self._quantiser = self._new()
        self._quantiser.train(np.ascontiguousarray(vectors))

    @property
    def _terms(self) -> Terms:
        return self._weights

    def _weights(self, x: np.ndarray) -> HalfByteWeights:
        """Return what the halves of bytes add: a number is its level times a step, counted from the lowest."""
        lowest, highest = self._decompress(np.array([[0], [255]], np.uint8).repeat(self.bytes, axis=1))
        weights = x * ((highest - lowest) / ((1 << self.bits_per_dimension) - 1))
        start = x @ lowest
        if self.bits_per_dimension == 8:
            return HalfByteWeights(weights, 16 * weights, start)
        low, high = (np.ascontiguousarray(weights[:, half::2]) for half in (0, 1))
        return HalfByteWeights(low, high, start)

    def _learnt(self) -> dict[str, np.ndarray]:
        return {"ranges": faiss.vector_to_array(self._quantiser.trained).reshape(2, self.dim)}

    def _relearn(self, state: dict[str, np.ndarray]) -> None:
        self._quantiser = self._new()
        faiss.copy_array_to_vector(checked(state, "ranges", (2, self.dim)).ravel(), self._quantiser.trained)
