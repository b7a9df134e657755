"""Bi-half hashing: codes whose bits are set for half of each batch, and whose cosines are those of the features.

Li and van Gemert, Deep Unsupervised Image Hashing by Maximizing Bit Entropy, AAAI 2021, arXiv 2012.12334.  The
bi-half layer gives the upper half of a batch's projections 1 and the lower -1, so that each bit has an entropy of 1;
the loss is the squared difference of cosines of codes and of features over pairs of a batch.

Here the network is a head on frozen features, and cosines are taken of the standardised features: cosines of features
whose mean isn't 0 have an offset that those of balanced codes can't have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from lshbench.methods import peer_losses
from lshbench.training.data import Batch, TrainingData
from lshbench.training.heads import HeadHasher, check_weight
from lshbench.training.loop import Terms
from lshbench.types import Progress


class BiHalf(HeadHasher):
    """Bi-half hashing; the arguments are the keys of ``conf/method/bihalf.yaml``.

    Args:
        gamma: weight of the distance of projections from their codes; 6 in the released code.
    """

    supervision = "none"
    smallest_batch = 2  # a batch is halved
    smallest_bits = 2  # cosines of one bit have no gradient, so that nothing is learnt from features

    def __init__(
        self,
        bits: int,
        seed: int = 0,
        device: str = "auto",
        gamma: float = 6.0,
        head: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(bits, seed, device, head, training)
        check_weight("gamma", gamma)
        self.gamma = gamma

    def criterion(self, data: TrainingData, progress: Progress) -> nn.Module:
        return BiHalfCriterion(self.gamma)


class BiHalfCriterion(nn.Module):
    """Cosines of balanced codes against those of the encoder's standardised inputs."""

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, encoder: nn.Sequential, batch: Batch) -> Terms:
        standard = encoder[0](batch.x)
        projections = encoder[1:](standard)
        codes = peer_losses.half(projections)
        return {
            "similarity": peer_losses.cosine_matching(codes, standard),
            "assignment": self.gamma * peer_losses.assignment(projections, codes),
        }
