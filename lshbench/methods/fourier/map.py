"""The asymmetric Fourier map of dominance similarity (Roy et al., NeurIPS 2023, "Locality Sensitive Hashing
in Fourier Frequency Domain for Soft Set Containment Search").

Dominance similarity of a query coordinate and a gallery coordinate that differ by ``s = q - c`` is

    G(s) = T - max(0, s)  for |s| <= T,  0 beyond,

with the Fourier transform (integral of G(s) exp(-i w s) ds) R(w) + i I(w):

    R(w) = 2 sin^2(w T / 2) / w^2 + T sin(w T) / w          (even, 3 T^2 / 2 at 0)
    I(w) = sin(w T) / w^2 - T cos(w T) / w                  (odd, 0 at 0)

Frequencies are drawn with density p(w) = (|R| + |I|) / N on [-b, b]; each input dimension d has its own m of
them.  With theta = w x_d, the maps consist of four blocks, divided by sqrt(p):

    query    [ sgn R sqrt|R| cos, sgn R sqrt|R| sin, -sgn I sqrt|I| sin, sgn I sqrt|I| cos ]
    gallery  [       sqrt|R| cos,       sqrt|R| sin,        sqrt|I| cos,       sqrt|I| sin ]

so that <F_q, F_c> / (2 pi m) is an unbiased estimate of the sum over d of G, limited to the band.  Both maps
have the norm sqrt(m D N), whatever the input.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from lshbench.training.layers import ShortProduct
from lshbench.types import Side

GRID = 100_000
"""Points of the inverse distribution function, as in the reference implementation."""


def real_part(frequency: np.ndarray, threshold: float) -> np.ndarray:
    """Return R(w), float64; ``threshold`` is T."""
    angle = np.asarray(frequency, np.float64) * threshold
    return threshold**2 * (np.sinc(angle / (2 * np.pi)) ** 2 / 2 + np.sinc(angle / np.pi))


def imaginary_part(frequency: np.ndarray, threshold: float) -> np.ndarray:
    """Return I(w), float64; ``threshold`` is T."""
    angle = np.asarray(frequency, np.float64) * threshold
    small = np.abs(angle) < 0.02
    safe = np.where(small, 1.0, angle)
    # (sin u - u cos u) / u^2 cancels near 0; its series u/3 - u^3/30 + u^5/840 is exact there.
    series = angle * (1 / 3 - angle**2 * (1 / 30 - angle**2 / 840))
    return threshold**2 * np.where(small, series, (np.sin(safe) - safe * np.cos(safe)) / safe**2)


def normaliser(threshold: float, band: float) -> float:
    """Return N, the integral of |R| + |I| over [-band, band]: Gauss-Legendre between the zeros."""
    points = np.linspace(0.0, band, max(64, int(np.ceil(threshold * band)) * 4) + 1)
    edges = [points]
    for part in (real_part, imaginary_part):
        values = part(points, threshold)
        crossing = np.flatnonzero(values[:-1] * values[1:] < 0)
        low, high, sign = points[crossing], points[crossing + 1], np.sign(values[crossing])
        for _ in range(60):
            middle = (low + high) / 2
            left = np.sign(part(middle, threshold)) == sign
            low, high = np.where(left, middle, low), np.where(left, high, middle)
        edges.append(low)
    cuts = np.unique(np.concatenate(edges))
    nodes, weights = np.polynomial.legendre.leggauss(10)
    half = np.diff(cuts)[:, None] / 2
    at = cuts[:-1, None] + half * (nodes + 1)
    values = np.abs(real_part(at, threshold)) + np.abs(imaginary_part(at, threshold))
    return float(2 * (values * weights * half).sum())


def density(frequency: np.ndarray, threshold: float, band: float) -> np.ndarray:
    """Return p(w), float64, which integrates to 1 over [-band, band]."""
    magnitude = np.abs(real_part(frequency, threshold)) + np.abs(imaginary_part(frequency, threshold))
    return magnitude / normaliser(threshold, band)


def sample_frequencies(count: int, threshold: float, band: float, generator: np.random.Generator) -> np.ndarray:
    """Return ``count`` independent frequencies of density p, float64: its sums on a grid, inverted."""
    # An even number of points: the grid never has 0.
    grid = np.linspace(-band, band, GRID)
    sums = np.cumsum(np.abs(real_part(grid, threshold)) + np.abs(imaginary_part(grid, threshold)))
    return np.interp(generator.uniform(1e-5, 1.0, count), sums / sums[-1], grid)


class FourierMap(nn.Module):
    """The map for given frequencies, as its waves and what weights on its four blocks are on these.

    Args:
        frequencies: float ``(D, m)``, m for each of the D input dimensions.
        threshold: T.
        band: b; the normaliser depends on it.
        gain: what the map is multiplied by.
    """

    frequencies: Tensor
    real_scale: Tensor
    real_sign: Tensor
    imaginary_scale: Tensor
    imaginary_sign: Tensor

    def __init__(self, frequencies: np.ndarray, threshold: float, band: float, gain: float = 1.0) -> None:
        super().__init__()
        flat = np.asarray(frequencies, np.float64).reshape(-1)
        real, imaginary = real_part(flat, threshold), imaginary_part(flat, threshold)
        chance = density(flat, threshold, band)
        self.register_buffer("frequencies", torch.tensor(flat.reshape(frequencies.shape), dtype=torch.float32))
        for name, values in (("real", real), ("imaginary", imaginary)):
            scale = gain * np.sqrt(np.abs(values) / chance)
            self.register_buffer(f"{name}_scale", torch.tensor(scale, dtype=torch.float32))
            self.register_buffer(f"{name}_sign", torch.tensor(np.sign(values), dtype=torch.float32))

    def waves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return cos(theta) and sin(theta), each ``(n, D * m)``, for inputs ``(n, D)``."""
        angles = (x[:, :, None] * self.frequencies).flatten(1)
        return angles.cos(), angles.sin()

    def collapse(self, weight: Tensor, side: Side) -> tuple[Tensor, Tensor]:
        """Return the weights on ``cos`` and ``sin`` that equal a linear layer on the four-part map.

        A linear layer of the map is one of half as many inputs: what the blocks of the same wave are weighted
        by adds up.  The map itself need not be made.

        Args:
            weight: of a layer on the four-part map, ``(h, 4 * D * m)``.
            side: which side's map.

        Returns:
            Two ``(h, D * m)`` matrices A, B with ``weight @ F = A @ cos + B @ sin``.
        """
        first, second, third, fourth = weight.chunk(4, dim=1)
        if side == "gallery":
            return (
                first * self.real_scale + third * self.imaginary_scale,
                second * self.real_scale + fourth * self.imaginary_scale,
            )
        real, imaginary = self.real_sign * self.real_scale, self.imaginary_sign * self.imaginary_scale
        return first * real + fourth * imaginary, second * real - third * imaginary


class MapLayer(ShortProduct, nn.Linear):
    """A linear layer on a side's Fourier map, computed from the collapsed weights.

    Parameters are those of the layer on the four-part map, so that its initial weights, its gradients and the
    decay of its weights are those of the published network, at half the arithmetic and memory.

    Args:
        inputs: the four-part map's width.
        outputs: the layer's width.
    """

    def forward(  # type: ignore[override]
        self, fourier: FourierMap, waves: tuple[Tensor, Tensor], side: Side
    ) -> Tensor:
        """Return the layer of one side's map, ``(n, outputs)``, from :meth:`FourierMap.waves`."""
        on_cosine, on_sine = fourier.collapse(self.weight, side)
        return self.product(waves[0], on_cosine) + self.product(waves[1], on_sine) + self.bias
