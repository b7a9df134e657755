"""RaBitQ: signs of the numbers after a random rotation, and factors that make the estimate of a product unbiased.

Gao and Long, RaBitQ: quantizing high-dimensional vectors with a theoretical error bound for approximate nearest
neighbor search, SIGMOD 2024; with several bits a dimension: Gao et al., Practical and asymptotically optimal
quantization of high-dimensional vectors in Euclidean space for approximate nearest neighbor search, SIGMOD 2025.

faiss stores 8 bytes of factors with one bit a dimension, 20 with more: 12 of them serve a first look at the signs
alone, by which its engines skip items, and which a ranking of all by all bits does without.  One factor keeps the
product of an item with the mean exactly, so that queries lose the mean as well: signs tell little along it.  What faiss
decodes is that of the signs alone; here all bits and factors are, to the vector whose product with a query is faiss's
estimate.
"""

from __future__ import annotations

from typing import Annotated, Any

import faiss
import numpy as np

from lshbench.errors import wrong_value
from lshbench.methods.scalars import RoundingQuantiser
from lshbench.training.constraints import WHOLE, between
from lshbench.types import ByteTables, Terms, Vectors

SIGN_FACTORS, ALL_FACTORS = 8, 20
"""Bytes of an item's factors: with one bit a dimension, and with more."""

BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[None], axis=0, bitorder="little").astype(np.float32)
"""The bits of every value of a byte, ``(8, 256)``, the lowest first."""


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
        super().__init__(bits, seed, bits_per_dimension, dim, max_points)
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
        """Learn nothing more: the factors are an item's own."""

    @property
    def _centre(self) -> np.ndarray:
        """The mean, reduced as items are: what faiss subtracts, and remembers the product with in an item's factors."""
        return np.ascontiguousarray(self.mean @ self.weight)

    def _query_vectors(self, units: np.ndarray) -> Vectors:
        # faiss's estimate: the product without the mean, and what an item's factors add.
        numbers = np.concatenate([units @ self.weight - self._centre, np.ones((len(units), 1), np.float32)], axis=1)
        return Vectors(numbers, units @ self.mean, self.decode, self._terms)

    def _completed(self, vectors: np.ndarray) -> np.ndarray:
        return vectors

    @property
    def _terms(self) -> Terms:
        return self._tables

    def _tables(self, x: np.ndarray) -> ByteTables:
        """Return what the bytes of signs, and of the bits below them, add to the sum that an item's factor scales."""
        numbers, last = x[:, :-1], x[:, -1]
        more, signs = self.bits_per_dimension - 1, (self.dim + 7) // 8
        total = numbers.sum(axis=1)
        if not more:
            unit = np.float32(1 / np.sqrt(self.dim))
            centre = self._centre
            weight, added = -last / 2, -last / 2 * (centre @ centre)
            return ByteTables(((0, _bit_tables(2 * unit * numbers)),), -unit * total, signs, weight, added)
        sign = np.float32(1 << more)
        low = (numbers[:, :, None] * np.exp2(np.arange(more, dtype=np.float32))).reshape(len(x), -1)
        start = signs + SIGN_FACTORS + 4
        tables = (0, _bit_tables(sign * numbers)), (start, _bit_tables(low))
        end = start + (self.dim * more + 7) // 8
        return ByteTables(tables, (np.float32(0.5) - sign) * total, end, last, np.zeros_like(last))

    def _compress(self, vectors: np.ndarray) -> np.ndarray:
        codes = np.empty((len(vectors), self.bytes), np.uint8)
        centre = self._centre
        whole = np.ascontiguousarray(vectors + centre)
        pointers = (faiss.swig_ptr(whole), faiss.swig_ptr(codes), len(codes), faiss.swig_ptr(centre))
        self._quantiser.compute_codes_core(*pointers)
        return codes

    def _decompress(self, stored: np.ndarray) -> np.ndarray:
        """Return the numbers less the mean, and as a last one what the factors add to every product."""
        # The layout: signs, factors, and with several bits a dimension those below the sign, and two more factors.
        more = self.bits_per_dimension - 1
        signs = (self.dim + 7) // 8
        bits = np.unpackbits(stored[:, :signs], axis=1, count=self.dim, bitorder="little").astype(np.float32)
        if not more:
            factors = np.ascontiguousarray(stored[:, signs:]).view("<f4")
            numbers = (2 * bits - 1) * (factors[:, 1:2] / np.float32(np.sqrt(self.dim)))
            centre = self._centre
            # The first factor is the square length of the item less the mean, less that of the item.
            return np.concatenate([numbers, np.float32(-0.5) * (factors[:, :1] + centre @ centre)], axis=1)
        start, end = signs + SIGN_FACTORS + 4, signs + SIGN_FACTORS + 4 + (self.dim * more + 7) // 8
        low = np.unpackbits(stored[:, start:end], axis=1, count=self.dim * more, bitorder="little")
        low = low.reshape(len(stored), self.dim, more) @ np.exp2(np.arange(more, dtype=np.float32))
        # The sign is the highest bit of a level; levels lie evenly around zero.
        levels = bits * np.float32(1 << more) + low - np.float32((1 << more) - 0.5)
        factors = np.ascontiguousarray(stored[:, end:]).view("<f4")
        return np.concatenate([levels * factors[:, 1:2], factors[:, :1]], axis=1)

    def _learnt(self) -> dict[str, np.ndarray]:
        return {}

    def _relearn(self, state: dict[str, np.ndarray]) -> None:
        """Take over nothing."""


def _bit_tables(weights: np.ndarray) -> np.ndarray:
    """Return what each value of each byte of bits adds, float32 ``(q, ceil(n / 8), 256)``.

    Args:
        weights: of the bits, float32 ``(q, n)``.
    """
    filled = np.pad(weights, ((0, 0), (0, -weights.shape[1] % 8)))
    return filled.reshape(len(weights), -1, 8) @ BITS
