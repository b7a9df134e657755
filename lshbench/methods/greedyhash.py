"""Greedy Hash: a linear classifier on signs, trained through them as if they were not there.

Su, Zhang, Han and Tian, Greedy Hash: Towards Fast Optimization for Accurate Hash Coding in CNN, NeurIPS 2018.  The
loss is the cross-entropy of a linear layer without bias on sgn(h), whose gradient goes on to h unchanged, plus alpha
times |h - sgn(h)|^3.  Where items may have several labels, of which the paper says nothing, each class has a binary
cross-entropy of its own; an item of several labels is one of each of its classes, one without a label of none.
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
class GreedyHash(HeadHasher):
    """Greedy Hash: the keys of ``conf/method/greedyhash.yaml``.

    Attributes:
        alpha: weight of the cubed distance of projections from their signs; .1 in the released code for CIFAR-10, 1 for
            ImageNet.
    """

    supervision = "labels"

    alpha: Weight

    def criterion(self, data: TrainingData, progress: Progress) -> Criterion:
        return GreedyHashCriterion(self.bits, data.classes, self.alpha)


class GreedyHashCriterion(nn.Module):
    """The classifier, learnt with the head and not needed after, and the penalty."""

    def __init__(self, bits: int, classes: int, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.classifier = nn.Linear(bits, classes, bias=False)

    def forward(self, encoder: nn.Module, batch: Batch) -> Terms:
        projections = encoder(batch.x)
        logits = self.classifier(signs(projections))
        if batch.y.ndim == 1:
            entropy = functional.cross_entropy(logits, batch.y)
        else:
            entropy = functional.binary_cross_entropy_with_logits(logits, batch.y.to(logits.dtype))
        return {"class": entropy, "quantization": self.alpha * cubed_fence(projections)}


def signs(projections: Tensor) -> Tensor:
    """Return -1 and 1, 1 where a projection is >= 0 as in packed codes, straight through.

    (Greedy Hash, Su et al., NeurIPS 2018, section 3.3: the forward pass takes signs, the backward pass copies
    the gradient.)
    """
    return straight_through(torch.where(projections >= 0, 1.0, -1.0).to(projections.dtype), projections)


def cubed_fence(projections: Tensor) -> Tensor:
    """Return the mean of |h - sgn(h)|^3, the penalty of section 3.3 (p = 3)."""
    return ((projections.abs() - 1).abs() ** 3).mean()
