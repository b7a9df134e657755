"""No hashing: features alone, for indexes that rank features."""

from __future__ import annotations

from typing import Self

import numpy as np

from lshbench.methods.base import Method
from lshbench.types import Features, Progress, Side


class NoMethod(Method):
    """Learns nothing and gives no codes."""

    gives = "nothing"
    bits = None

    def __init__(self) -> None:
        self.history = []

    def fit(self, train: Features, progress: Progress) -> Self:
        return self

    def encode(self, x: np.ndarray, side: Side, *, projections: bool = False) -> None:
        return None

    def state(self) -> dict[str, np.ndarray]:
        return {}

    def restore(self, state: dict[str, np.ndarray]) -> Self:
        return self
