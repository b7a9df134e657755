"""Greedy Hash: a linear classifier on signs, trained through them as if they were not there.

Su, Zhang, Han and Tian, Greedy Hash: Towards Fast Optimization for Accurate Hash Coding in CNN, NeurIPS 2018.  The
loss is the cross-entropy of a linear layer without bias on sgn(h), whose gradient goes on to h unchanged, plus alpha
times |h - sgn(h)|^3.  With several labels an item, each class has a cross-entropy of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn import functional

from lshbench.methods import peer_losses
from lshbench.training.data import Batch, TrainingData
from lshbench.training.heads import HeadHasher, check_weight
from lshbench.training.loop import Terms
from lshbench.types import Progress


class GreedyHash(HeadHasher):
    """Greedy Hash; the arguments are the keys of ``conf/method/greedyhash.yaml``.

    Args:
        alpha: weight of the cubed distance of projections from their signs; .1 in the released code for CIFAR-10, 1 for
            ImageNet.
    """

    supervision = "labels"

    def __init__(
        self,
        bits: int,
        seed: int = 0,
        device: str = "auto",
        alpha: float = 0.1,
        head: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(bits, seed, device, head, training)
        check_weight("alpha", alpha)
        self.alpha = alpha

    def criterion(self, data: TrainingData, progress: Progress) -> nn.Module:
        return GreedyHashCriterion(self.bits, data.classes, self.alpha)


class GreedyHashCriterion(nn.Module):
    """The classifier, learnt with the head and not needed after, and the penalty."""

    def __init__(self, bits: int, classes: int, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.classifier = nn.Linear(bits, classes, bias=False)

    def forward(self, encoder: nn.Module, batch: Batch) -> Terms:
        projections = encoder(batch.x)
        logits = self.classifier(peer_losses.signs(projections))
        if batch.y.ndim == 1:
            entropy = functional.cross_entropy(logits, batch.y)
        else:
            entropy = functional.binary_cross_entropy_with_logits(logits, batch.y.to(logits.dtype))
        return {"class": entropy, "quantization": self.alpha * peer_losses.cubed_fence(projections)}
