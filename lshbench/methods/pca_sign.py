"""Signs of principal components (PCA hashing).

Wang, Kumar, Chang, Semi-supervised hashing for large-scale search, TPAMI 2012: without labels, the
directions of largest variance are those whose bits are closest to balanced and uncorrelated.
"""

from __future__ import annotations

from typing import Self

from lshbench.methods.linear import LinearHasher, check_components
from lshbench.training.pca import principal_axes
from lshbench.types import Features, Progress


class PcaSign(LinearHasher):
    """One bit for each of the first ``bits`` principal components.

    Args:
        bits: code length, at most the number of components.
        standardize: scale each feature to unit variance over the training items first.
    """

    def __init__(self, *, bits: int, standardize: bool = False) -> None:
        super().__init__(bits, seed=0)  # nothing is drawn
        self.standardize = standardize

    def fit(self, train: Features, progress: Progress) -> Self:
        check_components(self.bits, train.x)
        axes = principal_axes(train.x, self.bits, standardize=self.standardize)
        self.offset, self.weight = axes.mean, axes.weight
        return self
