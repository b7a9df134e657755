"""HashNet: a weighted likelihood of which pairs are similar, and tanh that turns into sgn while training goes on.

Cao, Long, Wang and Yu, HashNet: Deep Learning to Hash by Continuation, ICCV 2017, arXiv 1702.00758.  Similar and
dissimilar pairs are weighted to count alike; codes are tanh(beta u), with beta growing from step to step as in the
released code, but over the training there is instead of 10,000 steps.  Pairs are those of a batch; items that share
a label are similar.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lshbench.errors import wrong_value
from lshbench.methods import peer_losses
from lshbench.training.data import Batch, TrainingData
from lshbench.training.heads import HeadHasher, check_positive
from lshbench.training.loop import Terms
from lshbench.training.validation import same_labels
from lshbench.types import Progress


class HashNet(HeadHasher):
    """HashNet; the arguments are the keys of ``conf/method/hashnet.yaml``.

    Args:
        alpha: of products in the likelihood, in units of 1 / bits; 10 in the released code.
        last_beta: what beta has grown to at the end of training; the released code comes to 7.1.
    """

    supervision = "labels"

    def __init__(
        self,
        bits: int,
        seed: int = 0,
        device: str = "auto",
        alpha: float = 10.0,
        last_beta: float = 7.0,
        head: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(bits, seed, device, head, training)
        check_positive("alpha", alpha)
        if not 1 <= last_beta < math.inf:
            raise wrong_value("method.last_beta", last_beta, "at least 1, where beta begins")
        self.alpha, self.last_beta = alpha, last_beta

    def criterion(self, data: TrainingData, progress: Progress) -> nn.Module:
        steps = self.training.epochs * data.batches_per_epoch(self.training)
        return HashNetCriterion(self.alpha / self.bits, self.last_beta, steps)


class HashNetCriterion(nn.Module):
    """The likelihood of a batch's pairs, at the beta of the step.

    Args:
        alpha: of products.
        last_beta: as for :class:`HashNet`.
        steps: how many batches the training has.

    Attributes:
        done: batches seen in training mode, int64: a buffer, so that checkpoints hold it and a training that is taken
            up again goes on at the same beta.
    """

    done: Tensor

    def __init__(self, alpha: float, last_beta: float, steps: int) -> None:
        super().__init__()
        self.alpha, self.last_beta, self.steps = alpha, last_beta, steps
        self.register_buffer("done", torch.zeros((), dtype=torch.int64))

    @property
    def beta(self) -> Tensor:
        """The factor of projections for the next batch, a scalar on the criterion's device."""
        return peer_losses.continuation((self.done / self.steps).clamp(max=1), self.last_beta)

    def forward(self, encoder: nn.Module, batch: Batch) -> Terms:
        codes = torch.tanh(self.beta * encoder(batch.x))
        if self.training:
            self.done += 1
        return {"likelihood": peer_losses.pair_likelihood(codes, same_labels(batch.y, batch.y), self.alpha)}
