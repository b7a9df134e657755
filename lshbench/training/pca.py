"""Principal components, as the reduction before any method and as a part of several.

Statistics are taken block by block in float64, so that features may be a memory map larger than memory.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np

from lshbench.errors import UsageError, wrong_value
from lshbench.runtime import scratch
from lshbench.runtime.shared_work import once

log = logging.getLogger(__name__)

BLOCK_ROWS = 4096
"""Rows taken to float64 at a time: bounds memory, and keeps matrix products large."""

CONSTANT = 1e-6
"""A column that varies by less than this share of its mean is constant: what is left is rounding."""


@dataclass(frozen=True)
class Axes:
    """Principal axes of training features: ``(x - mean) @ weight`` are an item's components.

    Attributes:
        mean: float32 ``(d,)``.
        weight: float32 ``(d, k)``, the largest variance first; the entry of largest magnitude in a column is
            positive, so that signs don't depend on the solver.  Columns have unit length unless features are
            standardised.
        variance: float64 ``(k,)``, the components' variances.
        total: the variance of all components, kept or not.
    """

    mean: np.ndarray
    weight: np.ndarray
    variance: np.ndarray
    total: float


def column_moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each column, float64 ``(d,)``, of features float32 ``(n, d)``."""
    shift = _shift(x)
    first, second = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for block in _centred(x, shift):
        first += block.sum(axis=0)
        second += np.einsum("ij,ij->j", block, block)
    offset = first / len(x)
    return shift + offset, np.sqrt(np.maximum(second / len(x) - offset**2, 0))


def scale_to_unit(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Return what columns are multiplied by for unit variance, float64 ``(d,)``; 0 for constant columns."""
    varies = deviation > CONSTANT * np.abs(mean)
    return np.divide(1, deviation, out=np.zeros(len(mean)), where=varies)


def principal_axes(x: np.ndarray, count: int | None = None, *, standardize: bool = False) -> Axes:
    """Find the directions in which features vary most.

    The covariance matrix is ``(d, d)``; for fewer items than columns the Gram matrix ``(n, n)`` replaces it.

    Args:
        x: float32 ``(n, d)``.
        count: how many, at most ``min(n, d)``; None for all of those.
        standardize: find them for columns scaled to unit variance; the scaling becomes part of ``weight``.
    """
    limit = min(x.shape)
    count = limit if count is None else count
    if not 1 <= count <= limit:
        raise ValueError(f"{count} components of features {x.shape}")
    mean, deviation = column_moments(x)
    scale = scale_to_unit(mean, deviation) if standardize else np.ones(x.shape[1])
    if x.shape[1] <= len(x):
        variance, vectors, total = _from_covariance(x, mean, scale, count)
    else:
        variance, vectors, total = _from_gram(x, mean, scale, count)
    largest = np.abs(vectors).argmax(axis=0)
    vectors *= np.where(vectors[largest, np.arange(count)] < 0, -1, 1)
    weight = np.ascontiguousarray(scale[:, None] * vectors, np.float32)
    return Axes(mean.astype(np.float32), weight, variance, total)


def _from_covariance(
    x: np.ndarray, mean: np.ndarray, scale: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, float]:
    def decompose() -> dict[str, np.ndarray]:
        covariance = np.zeros((x.shape[1], x.shape[1]))
        for block in _centred(x, mean):
            covariance += block.T @ block
        covariance *= scale[:, None] * scale / max(len(x) - 1, 1)
        values, vectors = np.linalg.eigh(covariance)
        return {"values": values, "vectors": vectors, "total": np.trace(covariance)}

    # All components, whatever the count: runs of every code length share them.
    inputs = {"x": x, "mean": mean, "scale": scale}
    found = once("principal-axes", inputs, len(x) * x.shape[1] ** 2, decompose)
    values = found["values"]
    order = np.arange(len(values) - 1, len(values) - 1 - count, -1)
    return np.maximum(values[order], 0), found["vectors"][:, order], float(found["total"])


def _from_gram(x: np.ndarray, mean: np.ndarray, scale: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, float]:
    gram = np.zeros((len(x), len(x)))
    # Blocks of columns: every block has all items, few enough here.
    width = max(1, BLOCK_ROWS * 64 // len(x))
    columns = [slice(start, start + width) for start in range(0, x.shape[1], width)]
    for part in columns:
        block = (x[:, part] - mean[part]) * scale[part]
        gram += block @ block.T
    gram /= max(len(x) - 1, 1)
    values, left = np.linalg.eigh(gram)
    order = np.arange(len(values) - 1, len(values) - 1 - count, -1)
    vectors = np.empty((x.shape[1], count))
    for part in columns:
        vectors[part] = ((x[:, part] - mean[part]) * scale[part]).T @ left[:, order]
    # A direction without variance is rounding (centred items span n - 1): orthonormalised, it does no harm.
    vectors, triangle = np.linalg.qr(vectors)
    vectors *= np.where(np.diag(triangle) < 0, -1, 1)
    return np.maximum(values[order], 0), vectors, float(np.trace(gram))


def _shift(x: np.ndarray) -> np.ndarray:
    """Return a point near the mean, which sums of squares are taken from lest they cancel."""
    return x[:BLOCK_ROWS].mean(axis=0, dtype=np.float64)


def _centred(x: np.ndarray, shift: np.ndarray) -> Iterator[np.ndarray]:
    """Yield blocks of rows less a point, float64."""
    for start in range(0, len(x), BLOCK_ROWS):
        yield x[start : start + BLOCK_ROWS] - shift
        scratch.release(x)


class PCA:
    """Principal component analysis (Pearson 1901), fitted on training features.

    Args:
        dim: a number of components, or the least share of the variance that is kept, between 0 and 1.
        whiten: scale the components to unit variance.
        seed: not drawn from: the solution is exact.

    Raises:
        UsageError: ``dim`` is neither.
    """

    mean: np.ndarray
    weight: np.ndarray

    def __init__(self, dim: int | float, whiten: bool = False, seed: int = 0) -> None:
        number = isinstance(dim, int) and not isinstance(dim, bool) and dim >= 1
        fraction = isinstance(dim, float) and 0 < dim < 1
        if not (number or fraction):
            raise wrong_value(
                "pca.dim",
                dim,
                "a number of components (1 or more), a fraction of the variance such as 0.95, or null",
            )
        self.dim = dim
        self.whiten = whiten

    def fit(self, x: np.ndarray) -> Self:
        """Learn from training features, float32 ``(n, d)``.

        Raises:
            UsageError: more components than ``min(n, d)``, or features that don't vary.
        """
        if self.dim > min(x.shape):
            raise wrong_value(
                "pca.dim",
                self.dim,
                f"at most {min(x.shape)}: {len(x)} training items of {x.shape[1]} numbers each",
            )
        axes = principal_axes(x, self.dim if isinstance(self.dim, int) else None)
        if axes.variance[0] <= (CONSTANT * float(np.abs(axes.mean).max())) ** 2:
            raise UsageError(f"pca.dim={self.dim!r}: the {len(x)} training items have all the same features")
        shares = np.cumsum(axes.variance) / axes.total
        kept = len(shares) if isinstance(self.dim, int) else int(np.searchsorted(shares, self.dim) + 1)
        kept = min(kept, len(shares))
        weight = axes.weight[:, :kept]
        if self.whiten:
            variance = axes.variance[:kept]
            # What has no variance in training carries no information: 0 rather than rounding blown up.
            present = variance > 1e-12 * axes.variance[0]
            weight = weight * np.divide(1, np.sqrt(variance), out=np.zeros(kept), where=present)
        self.mean = axes.mean
        self.weight = np.ascontiguousarray(weight, np.float32)
        log.info("PCA keeps %d of %d components, %.1f %% of the variance", kept, x.shape[1], 100 * shares[kept - 1])
        return self

    def transform(self, x: np.ndarray) -> np.ndarray:
        """Return the components of items, float32 ``(n, k)``."""
        reduced = scratch.empty((len(x), self.weight.shape[1]))
        for start in range(0, len(x), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            np.matmul(x[rows] - self.mean, self.weight, out=reduced[rows])
            scratch.release(reduced)
        return reduced

    def state(self) -> dict[str, np.ndarray]:
        """Return what was learnt: ``mean`` float32 ``(d,)`` and ``weight`` float32 ``(d, k)``."""
        return {"mean": self.mean, "weight": self.weight}

    def restore(self, state: dict[str, np.ndarray]) -> Self:
        """Take over what :meth:`state` returned."""
        self.mean, self.weight = state["mean"], state["weight"]
        return self
