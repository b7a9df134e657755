"""RaBitQ: signs of the numbers after a random rotation, and factors that make the estimate of a product unbiased.

Gao and Long, RaBitQ: quantizing high-dimensional vectors with a theoretical error bound for approximate nearest
neighbor search, SIGMOD 2024; with several bits a dimension: Gao et al., Practical and asymptotically optimal
quantization of high-dimensional vectors in Euclidean space for approximate nearest neighbor search, SIGMOD 2025.

faiss stores 8 bytes of factors with one bit a dimension, 20 with more, of which a product needs 4.  What it decodes is
that of the signs alone; here all bits are decoded, to the vector whose product with a query is faiss's estimate.
"""

from __future__ import annotations

from typing import Annotated, Any

import faiss
import numpy as np

from lshbench.errors import wrong_value
from lshbench.methods.scalars import RoundingQuantiser
from lshbench.training.constraints import WHOLE, between

SIGN_FACTORS, ALL_FACTORS = 8, 20
"""Bytes of an item's factors: with one bit a dimension, and with more."""


class RaBitQuantiser(RoundingQuantiser):
    """One or more bits for each of the reduced features, and their factors.

    Args:
        bits: stored for an item, factors included, a multiple of 8.
        seed: of the training items drawn and the rotation.
        bits_per_dimension: 1 to 8.
        dim: numbers that an item is reduced to: as many as fit.
        max_points: training items that mean and axes are learnt from, drawn by the seed.
    """

    bits_per_dimension: Annotated[int, WHOLE, between(1, 8, "from 1 to 8")]

    def __init__(
        self,
        *,
        bits: int,
        seed: int = 0,
        bits_per_dimension: int = 1,
        dim: int | str = "auto",
        max_points: int = 20_000,
    ) -> None:
        self.bits_per_dimension = bits_per_dimension
        super().__init__(bits, seed, dim, max_points)
        make: Any = faiss.RaBitQuantizer
        self._quantiser = make(self.dim, faiss.METRIC_INNER_PRODUCT, bits_per_dimension)

    @property
    def _factors(self) -> int:
        return SIGN_FACTORS if self.bits_per_dimension == 1 else ALL_FACTORS

    def _room(self) -> int:
        per, factors = self.bits_per_dimension, self._factors
        room = 8 * (self.bytes - factors) // per
        while room > 0 and self._size(room) > self.bytes:  # signs and other bits end with whole bytes each
            room -= 1
        if room < 1 or self._size(room) < self.bytes:
            least = 8 * (factors + per)
            raise wrong_value(
                "bits",
                self.bits,
                f"{least}, {least + 8 * per}, {least + 16 * per} and so on with method.bits_per_dimension={per}: "
                f"{factors} of an item's bytes are its factors",
            )
        return room

    def _size(self, dim: int) -> int:
        """Return the bytes of a code of so many numbers."""
        return self._factors + (dim + 7) // 8 + (dim * (self.bits_per_dimension - 1) + 7) // 8

    def _train(self, vectors: np.ndarray) -> None:
        """Learn nothing: what is rounded has no mean, and the factors are an item's own."""

    def _compress(self, vectors: np.ndarray) -> np.ndarray:
        return self._quantiser.compute_codes(np.ascontiguousarray(vectors))

    def _decompress(self, stored: np.ndarray) -> np.ndarray:
        # The layout: signs, factors, and with several bits a dimension those below the sign, and two more factors.
        more = self.bits_per_dimension - 1
        signs = (self.dim + 7) // 8
        bits = np.unpackbits(stored[:, :signs], axis=1, count=self.dim, bitorder="little")
        if not more:
            factors = np.ascontiguousarray(stored[:, signs:]).view("<f4")
            return (2 * bits.astype(np.float32) - 1) * (factors[:, 1:2] / np.float32(np.sqrt(self.dim)))
        start, end = signs + SIGN_FACTORS + 4, signs + SIGN_FACTORS + 4 + (self.dim * more + 7) // 8
        low = np.unpackbits(stored[:, start:end], axis=1, count=self.dim * more, bitorder="little")
        # The sign is the highest bit of a level; levels lie evenly around zero.
        levels = bits * np.float32(1 << more) + low.reshape(len(stored), self.dim, more) @ np.exp2(
            np.arange(more, dtype=np.float32)
        )
        factors = np.ascontiguousarray(stored[:, end:]).view("<f4")
        return (levels - np.float32((1 << more) - 0.5)) * factors[:, 1:2]

    def _learnt(self) -> dict[str, np.ndarray]:
        return {}

    def _relearn(self, state: dict[str, np.ndarray]) -> None:
        """Take over nothing."""
