"""Spectral hashing: the smoothest eigenfunctions of the graph Laplacian, in closed form.

Weiss, Torralba, Fergus, Spectral hashing, NIPS 2008, section 3: for a uniform distribution on a box along the
principal axes, the eigenfunctions along axis i are cos(k pi (v_i - a_i) / (b_i - a_i)) with eigenvalues that
rise with k / (b_i - a_i); the code takes the ``bits`` lowest but the constant one, whichever axis they
belong to.
"""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np

from lshbench.errors import UsageError
from lshbench.methods.base import ENCODE_ROWS, BinaryHasher
from lshbench.training.constraints import Constraint, check_fields
from lshbench.training.pca import Axes, principal_axes
from lshbench.types import Features, Progress, Side

RANGE_POINTS = 100_000
"""Training items, evenly spaced, whose components give quantiles."""


class Spectral(BinaryHasher):
    """Signs of ``cos((x - offset) @ weight + phase)``.

    Args:
        bits: code length; may exceed the number of components, as an axis gives several bits.
        quantile: the box leaves out this share of the items at either end of each axis; 0, the paper's,
            leaves out none, so that one outlier stretches it.
        standardize: scale each feature to unit variance over the training items first.
    """

    offset: np.ndarray
    weight: np.ndarray
    phase: np.ndarray

    quantile: Annotated[float, Constraint(lambda value: 0 <= value < 0.5, "from 0 to below 0.5")]

    def __init__(self, *, bits: int, quantile: float = 0.01, standardize: bool = False) -> None:
        super().__init__(bits, seed=0)  # nothing is drawn
        self.quantile = quantile
        self.standardize = standardize
        check_fields("method", self)

    def fit(self, train: Features, progress: Progress) -> Self:
        axes = principal_axes(train.x, min(self.bits, *train.x.shape), standardize=self.standardize)
        low, high = self._box(train.x, axes)
        axis, frequency = lowest_modes(high - low, self.bits)
        self.offset = axes.mean
        self.weight = np.ascontiguousarray(axes.weight[:, axis] * frequency, np.float32)
        self.phase = (-frequency * low[axis]).astype(np.float32)
        return self

    def _box(self, x: np.ndarray, axes: Axes) -> tuple[np.ndarray, np.ndarray]:
        """Return where the box begins and ends on each axis, float64 ``(k,)``."""
        rows = np.arange(len(x))
        if self.quantile and len(x) > RANGE_POINTS:
            rows = np.linspace(0, len(x) - 1, RANGE_POINTS).astype(np.int64)
        kept = []
        for start in range(0, len(rows), ENCODE_ROWS):
            components = (x[rows[start : start + ENCODE_ROWS]] - axes.mean) @ axes.weight
            kept.append(components if self.quantile else np.stack([components.min(axis=0), components.max(axis=0)]))
        ends = np.quantile(np.concatenate(kept), [self.quantile, 1 - self.quantile], axis=0)
        return ends[0], ends[1]

    def project(self, x: np.ndarray, side: Side) -> np.ndarray:
        angles = (x - self.offset) @ self.weight
        angles += self.phase
        return np.cos(angles, out=angles)

    def state(self) -> dict[str, np.ndarray]:
        return {"offset": self.offset, "weight": self.weight, "phase": self.phase}

    def restore(self, state: dict[str, np.ndarray]) -> Self:
        if len(state["phase"]) != self.bits:
            raise ValueError(f"a state of {len(state['phase'])} bits for a method of {self.bits}")
        self.offset, self.weight, self.phase = state["offset"], state["weight"], state["phase"]
        return self


def lowest_modes(widths: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the ``bits`` smoothest eigenfunctions of a box but the constant one.

    Args:
        widths: the box's widths, float ``(k,)``; an axis of width 0 has none.
        bits: how many.

    Returns:
        The axis of each, int64 ``(bits,)``, and its angular frequency ``k pi / width``, ascending; ties by
        axis.

    Raises:
        UsageError: no axis has a width.
    """
    widest = float(widths.max())
    if widest <= 0:
        raise UsageError("method=spectral: the training items have all the same features")
    # The widest axis alone gives `bits` modes up to this frequency: higher ones are never among the lowest.
    most = np.floor(bits * widths / widest).astype(np.int64)
    axis = np.repeat(np.arange(len(widths)), most)
    wave = np.arange(len(axis)) - np.repeat(np.cumsum(most) - most, most) + 1
    frequency = np.pi * wave / widths[axis]
    order = np.argsort(frequency, kind="stable")[:bits]
    return axis[order], frequency[order]
