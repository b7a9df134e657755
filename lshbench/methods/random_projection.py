"""Random hyperplanes: the sign of Gaussian projections.

Charikar, Similarity estimation techniques from rounding algorithms, STOC 2002: two items at angle a differ
in a bit with probability a / pi.
"""

from __future__ import annotations

from typing import Self

import numpy as np

from lshbench.methods.linear import LinearHasher
from lshbench.training.pca import column_moments, scale_to_unit
from lshbench.types import Features, Progress


class RandomProjection(LinearHasher):
    """Signs of ``bits`` Gaussian projections.

    The first bits of a longer code are the shorter code of the same seed.

    Args:
        bits: code length, 1 to 4096.
        seed: of the hyperplanes.
        center: subtract the training items' mean, so that hyperplanes pass through the middle of the data
            instead of the origin, on one side of which non-negative features lie.
        standardize: scale each feature to unit variance over the training items.
    """

    def __init__(self, *, bits: int, seed: int = 0, center: bool = True, standardize: bool = False) -> None:
        super().__init__(bits, seed)
        self.center = center
        self.standardize = standardize

    def fit(self, train: Features, progress: Progress) -> Self:
        dim = train.x.shape[1]
        generator = np.random.default_rng(self.seed)
        weight = generator.standard_normal((self.bits, dim), dtype=np.float32).T
        offset = np.zeros(dim)
        if self.center or self.standardize:
            mean, deviation = column_moments(train.x)
            offset = mean if self.center else offset
            if self.standardize:
                weight = weight * scale_to_unit(mean, deviation)[:, None]
        self.offset = offset.astype(np.float32)
        self.weight = np.ascontiguousarray(weight, np.float32)
        return self
