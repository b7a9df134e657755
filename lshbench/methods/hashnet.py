"""HashNet: a weighted likelihood of which pairs are similar, and tanh that turns into sgn while training goes on.

Cao, Long, Wang and Yu, HashNet: Deep Learning to Hash by Continuation, ICCV 2017, arXiv 1702.00758.  Similar and
dissimilar pairs are weighted to count alike; codes are tanh(beta u), with beta growing from step to step as in the
released code, but over the training there is instead of 10,000 steps.  Pairs are those of a batch.  An item of several
labels is similar to every item that shares one, and all similar pairs count alike (c_ij = 1), as in the released
PyTorch code; in the paper a pair counts by the share of labels in common.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional

from lshbench.methods.trained import Criterion, HeadHasher
from lshbench.training.constraints import Positive, at_least
from lshbench.training.data import Batch, TrainingData
from lshbench.training.loop import Terms
from lshbench.training.validation import same_labels
from lshbench.types import Progress


@dataclass(kw_only=True, eq=False)
class HashNet(HeadHasher):
    """HashNet: the keys of ``conf/method/hashnet.yaml``.

    Attributes:
        alpha: of products in the likelihood, in units of 1 / bits; 10 in the released code.
        last_beta: what beta has grown to at the end of training; the released code comes to 7.1.
    """

    supervision = "labels"

    alpha: Positive
    last_beta: Annotated[float, at_least(1, "at least 1, where beta begins")]

    def criterion(self, data: TrainingData, progress: Progress) -> Criterion:
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
        return continuation((self.done / self.steps).clamp(max=1), self.last_beta)

    def forward(self, encoder: nn.Module, batch: Batch) -> Terms:
        codes = torch.tanh(self.beta * encoder(batch.x))
        if self.training:
            self.done += 1
        return {"likelihood": pair_likelihood(codes, same_labels(batch.y, batch.y), self.alpha)}


def pair_likelihood(codes: Tensor, similar: Tensor, alpha: float) -> Tensor:
    """Return the weighted negative log-likelihood of which pairs are similar, averaged over pairs.

    The mean over pairs i != j of w_ij (log(1 + exp(alpha <h_i, h_j>)) - alpha s_ij <h_i, h_j>), with w_ij = |S| / |S1|
    for similar pairs and |S| / |S0| for others (section 3.1, c_ij = 1): similar and dissimilar pairs count alike
    however few there are.  A kind that a batch has no pairs of counts as 0.

    Args:
        codes: ``(n, bits)``, from -1 to 1.
        similar: bool ``(n, n)``, symmetric; the diagonal is ignored.
        alpha: of the product in the likelihood, 1 / (1 + exp(-alpha <h_i, h_j>)).
    """
    products = alpha * (codes @ codes.T)
    surprise = functional.softplus(products) - similar * products
    # An item's product with itself is always large, and says nothing of others.
    others = ~torch.eye(len(codes), dtype=torch.bool, device=codes.device)
    return _mean_where(surprise, similar & others) + _mean_where(surprise, ~similar & others)


def continuation(progress: Tensor, last: float) -> Tensor:
    """Return beta, by which projections are multiplied before ``tanh``: from 1 to ``last`` while training goes on.

    sqrt(1 + gamma step), the released code's schedule, with gamma such that ``last`` is reached at the end.

    Args:
        progress: the part of the training that is done, from 0 to 1.
        last: at least 1.
    """
    return torch.sqrt(1 + progress * (math.pow(last, 2) - 1))


def _mean_where(values: Tensor, mask: Tensor) -> Tensor:
    return values.masked_fill(~mask, 0).sum() / mask.sum().clamp(min=1)
