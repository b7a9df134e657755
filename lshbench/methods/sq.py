"""Scalar quantisation: each number rounded to 256 or 16 levels between the smallest and the largest of training."""

from __future__ import annotations

from typing import Annotated

import faiss
import numpy as np

from lshbench.methods.quantiser import checked
from lshbench.methods.scalars import RoundingQuantiser
from lshbench.training.constraints import Constraint
from lshbench.types import LevelWeights, Terms

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

    def _weights(self, x: np.ndarray) -> LevelWeights:
        """Return what levels add: a number is the lowest and as many steps, of which half the square is taken away."""
        lowest, highest = self._decompress(np.array([[0], [255]], np.uint8).repeat(self.bytes, axis=1))
        step = (highest - lowest) / ((1 << self.bits_per_dimension) - 1)
        numbers = x[:, :-1]

        def by_byte(values: np.ndarray) -> np.ndarray:
            """Return values of numbers, ``(..., dim)``, by their places in a byte: ``(..., levels, bytes)``."""
            return np.ascontiguousarray(values.reshape(*values.shape[:-1], self.bytes, -1).swapaxes(-1, -2))

        start = numbers @ lowest - lowest @ lowest / 2
        return LevelWeights(by_byte((numbers - lowest) * step), by_byte(-step * step / 2), start)

    def _learnt(self) -> dict[str, np.ndarray]:
        return {"ranges": faiss.vector_to_array(self._quantiser.trained).reshape(2, self.dim)}

    def _relearn(self, state: dict[str, np.ndarray]) -> None:
        self._quantiser = self._new()
        faiss.copy_array_to_vector(checked(state, "ranges", (2, self.dim)).ravel(), self._quantiser.trained)
