"""Iterative quantization: principal components, and the rotation that brings them closest to their signs.

Gong, Lazebnik, Gordo, Perronnin, Iterative quantization: a Procrustean approach to learning binary codes,
TPAMI 2013, section 3.2: fixed R, B = sgn(V R); fixed B, the orthogonal Procrustes problem for R.

faiss (1.15) has an ITQMatrix too, but its rotation hardly improves on the random one that it starts from.
"""

from __future__ import annotations

from typing import Self

import numpy as np

from lshbench.methods.base import ENCODE_ROWS
from lshbench.methods.linear import LinearHasher, check_components, random_rotation
from lshbench.training.constraints import Count, CountOrAll, check_fields
from lshbench.training.history import Epoch
from lshbench.training.pca import principal_axes
from lshbench.types import Features, Progress


class Itq(LinearHasher):
    """Signs of the first ``bits`` principal components after a learnt rotation.

    ``history`` has the quantisation error of each iteration, ``|B - V R|^2 / (n * bits)`` with V scaled to a
    mean square of 1, which changes no rotation: between 0 and 2, and it never rises.

    Args:
        bits: code length, at most the number of components.
        seed: of the first rotation and of the items drawn.
        iterations: of the alternation.
        standardize: scale each feature to unit variance over the training items first.
        max_points: training items that the rotation is learnt from, drawn by the seed; None takes all.
    """

    iterations: Count
    max_points: CountOrAll

    def __init__(
        self,
        *,
        bits: int,
        seed: int = 0,
        iterations: int = 50,
        standardize: bool = False,
        max_points: int | None = 100_000,
    ) -> None:
        super().__init__(bits, seed)
        self.iterations = iterations
        self.standardize = standardize
        self.max_points = max_points
        check_fields("method", self)

    def fit(self, train: Features, progress: Progress) -> Self:
        check_components(self.bits, train.x)
        axes = principal_axes(train.x, self.bits, standardize=self.standardize)
        generator = np.random.default_rng(self.seed)
        rotation = random_rotation(self.bits, generator)
        components = self._components(train.x, axes.mean, axes.weight, generator)
        self.history = []
        with progress("learning the rotation", total=self.iterations, unit="iterations") as advance:
            for iteration in range(1, self.iterations + 1):
                correlation, error = _quantise(components, rotation)
                self.history.append(Epoch(iteration, error))
                left, _, right = np.linalg.svd(correlation)
                rotation = left @ right
                advance(1)
        self.offset = axes.mean
        self.weight = np.ascontiguousarray(axes.weight @ rotation, np.float32)
        return self

    def _components(
        self, x: np.ndarray, mean: np.ndarray, weight: np.ndarray, generator: np.random.Generator
    ) -> np.ndarray:
        """Return components of the items to learn from, float32 ``(m, bits)``, their mean square 1."""
        rows = np.arange(len(x))
        if self.max_points is not None and self.max_points < len(x):
            rows = np.sort(generator.choice(len(x), self.max_points, replace=False))
        components = np.empty((len(rows), self.bits), np.float32)
        for start in range(0, len(rows), ENCODE_ROWS):
            part = slice(start, start + ENCODE_ROWS)
            np.matmul(x[rows[part]] - mean, weight, out=components[part])
        size = np.sqrt(np.einsum("ij,ij->", components, components, dtype=np.float64) / components.size)
        return components if size == 0 else np.divide(components, np.float32(size), out=components)


def _quantise(components: np.ndarray, rotation: np.ndarray) -> tuple[np.ndarray, float]:
    """Return ``V^T sgn(V R)``, float64 ``(bits, bits)``, and the quantisation error, block by block."""
    single = rotation.astype(np.float32)
    correlation = np.zeros(rotation.shape)
    magnitude = 0.0
    for start in range(0, len(components), ENCODE_ROWS):
        block = components[start : start + ENCODE_ROWS]
        rotated = block @ single
        signs = np.where(rotated >= 0, np.float32(1), np.float32(-1))
        correlation += block.T @ signs
        magnitude += float(np.abs(rotated, out=rotated).sum(dtype=np.float64))
    return correlation, 2 - 2 * magnitude / components.size
