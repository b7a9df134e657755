"""Bi-half hashing: codes whose bits are set for half of each batch, and whose cosines are those of the features.

Li and van Gemert, Deep Unsupervised Image Hashing by Maximizing Bit Entropy, AAAI 2021, arXiv 2012.12334.  The
bi-half layer gives the upper half of a batch's projections 1 and the lower -1, so that each bit has an entropy of 1;
the loss is the squared difference of cosines of codes and of features over pairs of a batch.

Here the network is a head on frozen features, and cosines are taken of the standardised features: cosines of features
whose mean isn't 0 have an offset that those of balanced codes can't have.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from lshbench.methods.trained import Criterion, HeadHasher
from lshbench.training.constraints import Weight
from lshbench.training.data import Batch, TrainingData
from lshbench.training.loop import Terms
from lshbench.training.losses import straight_through
from lshbench.types import Progress


@dataclass(kw_only=True, eq=False)
class BiHalf(HeadHasher):
    """Bi-half hashing: the keys of ``conf/method/bihalf.yaml``.

    Attributes:
        gamma: weight of the distance of projections from their codes; 6 in the released code.
    """

    supervision = "none"
    smallest_batch = 2  # a batch is halved
    smallest_bits = 2  # cosines of one bit have no gradient, so that nothing is learnt from features

    gamma: Weight

    def criterion(self, data: TrainingData, progress: Progress) -> Criterion:
        return self.loss

    def loss(self, encoder: nn.Sequential, batch: Batch) -> Terms:
        """Return the difference of cosines of balanced codes from those of the encoder's standardised inputs."""
        standard = encoder[0](batch.x)
        projections = encoder[1:](standard)
        codes = half(projections)
        return {
            "similarity": cosine_matching(codes, standard),
            "assignment": self.gamma * assignment(projections, codes),
        }


def half(projections: Tensor) -> Tensor:
    """Return codes in which each bit is 1 for the upper half of the items and -1 for the lower, straight through.

    This is the balanced code that is closest to the projections (section 3, optimal transport).  Of an odd number of
    items one more gets -1, as in the released code.
    """
    ranks = projections.argsort(dim=0, descending=True, stable=True)
    upper = torch.full_like(projections, -1.0)
    upper[: len(projections) // 2] = 1.0
    return straight_through(torch.empty_like(upper).scatter_(0, ranks, upper), projections)


def assignment(projections: Tensor, codes: Tensor) -> Tensor:
    """Return half the mean square of U - B, whose gradient is (U - B) / (n bits).

    Times gamma it is what the paper adds to the straight-through gradient: dL/dU = dL/dB + gamma (U - B).
    """
    return functional.mse_loss(projections, codes.detach()) / 2


def cosine_matching(codes: Tensor, features: Tensor) -> Tensor:
    """Return the mean squared difference of cosines of codes and of features over pairs of items.

    Item i is paired with item i + n // 2, as in the released code: batches are shuffled, so pairs are random.

    Args:
        codes: ``(n, bits)``, n at least 2.
        features: ``(n, d)`` of the same items.
    """
    pairs = len(codes) // 2
    ours = functional.cosine_similarity(codes[:pairs], codes[pairs : 2 * pairs])
    theirs = functional.cosine_similarity(features[:pairs], features[pairs : 2 * pairs])
    return functional.mse_loss(ours, theirs)
