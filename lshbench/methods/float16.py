"""Features in half precision: the line above what quantisers can reach."""

from __future__ import annotations

from typing import Self

import numpy as np

from lshbench.methods.base import ENCODE_ROWS, Method
from lshbench.methods.quantiser import at_length_one, checked
from lshbench.types import Features, HalfPrecision, Progress, Quantised, Side, Vectors


class Float16(Method):
    """Stores the features at length 1 as half-precision numbers: two bytes a dimension, whatever ``bits`` says."""

    gives = "quantised"
    bits: int | None = None

    def __init__(self) -> None:
        self.history = []

    def fit(self, train: Features, progress: Progress) -> Self:
        self._dim = train.x.shape[1]
        self.bits = 16 * self._dim
        return self

    def encode(self, x: np.ndarray, side: Side, *, projections: bool = False) -> Quantised | Vectors:
        if side == "query":
            return Vectors(at_length_one(x), np.zeros(len(x), np.float32), self.decode, HalfPrecision)
        stored = np.empty((len(x), 2 * self._dim), np.uint8)
        for start in range(0, len(x), ENCODE_ROWS):
            part = slice(start, start + ENCODE_ROWS)
            stored[part] = at_length_one(x[part]).astype("<f2").view(np.uint8)
        return Quantised(stored, self.decode)

    def decode(self, stored: np.ndarray) -> np.ndarray:
        """Return stored vectors as float32 ``(n, d)``.

        Raises:
            ValueError: they are not uint8 ``(n, 2 d)``.
        """
        if stored.dtype != np.uint8 or stored.ndim != 2 or stored.shape[1] != 2 * self._dim:
            raise ValueError(f"codes of {2 * self._dim} bytes, not {stored.dtype} {stored.shape}")
        return np.ascontiguousarray(stored).view("<f2").astype(np.float32)

    def state(self) -> dict[str, np.ndarray]:
        return {"dim": np.array([self._dim], np.int64)}

    def restore(self, state: dict[str, np.ndarray]) -> Self:
        self._dim = int(checked(state, "dim", (1,), np.int64)[0])
        if self._dim < 1:
            raise ValueError(f"dim is {self._dim}")
        self.bits = 16 * self._dim
        return self
