"""Interface of a hashing method."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from lshbench.errors import wrong_value
from lshbench.runtime.scratch import release
from lshbench.training.history import Epoch
from lshbench.types import (
    MOST_BITS,
    Clusters,
    CodeKind,
    Codes,
    Features,
    Progress,
    Quantised,
    Side,
    Supervision,
    Vectors,
)

ENCODE_ROWS = 8192
"""Items encoded at a time: bounds memory, and keeps matrix products large."""


class Method(ABC):
    """Interface of a hashing method: hyper-parameters in the constructor, data in :meth:`fit`.

    The constructor takes the keys of the method's YAML as keywords, keeps each under its own name, and raises
    :class:`lshbench.errors.UsageError` (see :func:`lshbench.errors.wrong_value`) for values that can't be used, before
    any data is read.

    Attributes:
        gives: what :meth:`encode` returns: ``binary`` codes, ``clusters``, ``quantised`` vectors, or ``nothing``.
        supervision: ``labels`` if :meth:`fit` looks at labels, else ``none``.
        bits: the code's length; None if there is no code.
        history: the training curve, empty for a method that does not train.
        chosen_epoch: the epoch whose weights are used, or None.
        checkpoint: a file in which :meth:`fit` may keep its state, and from which it goes on if it is there.
    """

    gives: ClassVar[CodeKind]
    supervision: Supervision = "none"
    bits: int | None
    history: list[Epoch]
    chosen_epoch: int | None = None
    checkpoint: Path | None = None

    @abstractmethod
    def fit(self, train: Features, progress: Progress) -> Self:
        """Learn from training items.  Validation parts are taken from ``train``; queries are never seen."""

    @abstractmethod
    def encode(
        self, x: np.ndarray, side: Side, *, projections: bool = False
    ) -> Codes | Clusters | Quantised | Vectors | None:
        """Return the codes of items; for a quantiser, what it stores of gallery items and the vectors of queries.

        Args:
            x: float32 ``(n, d)``, features after PCA, if any, as :meth:`fit` takes them.
            side: gallery items or queries, which asymmetric methods encode differently.
            projections: whether binary codes come with their real-valued projections.
        """

    @abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """Return all that was learnt, as named arrays: what :meth:`restore` needs."""

    @abstractmethod
    def restore(self, state: dict[str, np.ndarray]) -> Self:
        """Take over what :meth:`state` of a method with the same hyper-parameters returned."""

    def in_effect(self) -> dict[str, Any]:
        """Return the values in effect of the constructor's keys but ``bits``, ``seed`` and ``device``, as plain values.

        What is given as ``auto`` is returned as the number that it stands for.
        """
        keys = [key for key in inspect.signature(type(self)).parameters if key not in ("bits", "seed", "device")]
        return {key: getattr(self, key) for key in keys}

    @property
    def parameters(self) -> int:
        """How many numbers were learnt or drawn."""
        return sum(int(array.size) for array in self.state().values())


def check_bits(bits: int) -> None:
    """Raise the error for a code length that no code has."""
    if not 1 <= bits <= MOST_BITS:
        raise wrong_value("bits", bits, f"a number from 1 to {MOST_BITS}")


class BinaryHasher(Method):
    """A method whose code is the signs of real-valued projections (a bit is set where its projection is >= 0)."""

    gives = "binary"
    bits: int

    def __init__(self, bits: int, seed: int) -> None:
        check_bits(bits)
        self.bits = bits
        self.seed = seed
        self.history = []

    @abstractmethod
    def project(self, x: np.ndarray, side: Side) -> np.ndarray:
        """Return projections, float32 ``(n, bits)``, of a block of items."""

    def encode(self, x: np.ndarray, side: Side, *, projections: bool = False) -> Codes:
        packed = np.empty((len(x), (self.bits + 7) // 8), np.uint8)
        real = np.empty((len(x), self.bits), np.float32) if projections else None
        for start in range(0, len(x), ENCODE_ROWS):
            block = self.project(x[start : start + ENCODE_ROWS], side)
            packed[start : start + ENCODE_ROWS] = Codes.from_signs(block).packed
            if real is not None:
                real[start : start + ENCODE_ROWS] = block
            if len(x) > ENCODE_ROWS:
                release(x)
        return Codes(packed, self.bits, real)
