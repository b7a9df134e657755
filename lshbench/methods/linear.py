"""What methods share whose bits are the signs of a linear map of centred features."""

from __future__ import annotations

from typing import Self

import numpy as np

from lshbench.errors import UsageError
from lshbench.methods.base import BinaryHasher
from lshbench.types import Side


class LinearHasher(BinaryHasher):
    """Bits are the signs of ``(x - offset) @ weight``.

    Attributes:
        offset: float32 ``(d,)``.
        weight: float32 ``(d, bits)``.
    """

    offset: np.ndarray
    weight: np.ndarray

    def project(self, x: np.ndarray, side: Side) -> np.ndarray:
        return (x - self.offset) @ self.weight

    def state(self) -> dict[str, np.ndarray]:
        return {"offset": self.offset, "weight": self.weight}

    def restore(self, state: dict[str, np.ndarray]) -> Self:
        if state["weight"].shape[1] != self.bits:
            raise ValueError(f"weights of {state['weight'].shape[1]} bits for a method of {self.bits}")
        self.offset, self.weight = state["offset"], state["weight"]
        return self


def random_rotation(size: int, generator: np.random.Generator) -> np.ndarray:
    """Return a rotation or reflection drawn uniformly, float64 ``(size, size)``.

    The Q of a Gaussian matrix's QR decomposition with R's diagonal made positive (Mezzadri, How to generate
    random matrices from the classical compact groups, 2007).
    """
    q, r = np.linalg.qr(generator.standard_normal((size, size)))
    return q * np.where(np.diag(r) < 0, -1, 1)


def check_components(bits: int, x: np.ndarray) -> None:
    """Refuse more bits than training features have principal components.

    Raises:
        UsageError: says how many there are and what has no such limit.
    """
    if bits > min(x.shape):
        raise UsageError(
            f"bits={bits}: expected at most {min(x.shape)} for a method with one bit for each principal "
            f"component: there are {len(x)} training items of {x.shape[1]} numbers each (after pca.dim, if "
            "any); method=random_projection and method=spectral have no such limit"
        )
