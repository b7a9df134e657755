"""Principal components, a random rotation, signs: a strong baseline that needs no training.

Jegou et al., Aggregating local descriptors into a compact image representation, CVPR 2010, and Gong and
Lazebnik, Iterative quantization, CVPR 2011 (PCA-RR); on features of pretrained networks: Moummad et al.,
Hashing-Baseline: Rethinking hashing in the age of pretrained models, 2025 (arXiv 2509.14427).
"""

from __future__ import annotations

from typing import Self

import numpy as np

from lshbench.methods.linear import LinearHasher, check_components, random_rotation
from lshbench.training.pca import principal_axes
from lshbench.types import Features, Progress


class PcaRotation(LinearHasher):
    """Signs of the first ``bits`` principal components after a rotation that spreads their variance evenly.

    Args:
        bits: code length, at most the number of components.
        seed: of the rotation.
        standardize: scale each feature to unit variance over the training items first.
    """

    def __init__(self, *, bits: int, seed: int = 0, standardize: bool = False) -> None:
        super().__init__(bits, seed)
        self.standardize = standardize

    def fit(self, train: Features, progress: Progress) -> Self:
        check_components(self.bits, train.x)
        axes = principal_axes(train.x, self.bits, standardize=self.standardize)
        rotation = random_rotation(self.bits, np.random.default_rng(self.seed))
        self.offset = axes.mean
        self.weight = np.ascontiguousarray(axes.weight @ rotation, np.float32)
        return self
