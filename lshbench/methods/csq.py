"""Central similarity quantization: each bit is trained to be that of a hash center, one for each class.

Yuan, Wang, Zhang, Tay, Jie, Liu and Feng, Central Similarity Quantization for Efficient Image and Video Retrieval,
CVPR 2020, arXiv 1908.00347.  Centers are rows of a Hadamard matrix, which lie half their bits apart, or random codes
where there is none; the loss is the cross-entropy of bits, plus lambda times a smooth distance of outputs from -1
and 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lshbench.methods.trained import HeadHasher, check_weight
from lshbench.training.class_codes import Targets, check_targets, class_codes, item_codes, memberships
from lshbench.training.data import Batch, TrainingData
from lshbench.training.loop import Terms
from lshbench.types import Progress


@dataclass(kw_only=True, eq=False)
class Csq(HeadHasher):
    """Central similarity quantization: the keys of ``conf/method/csq.yaml``.

    Attributes:
        targets: kind of hash centers, see :func:`lshbench.training.class_codes.class_codes`.
        quantization_weight: lambda; .05 in the released code, whose distance is the square, about twice this one.  The
            pairwise loss that the code adds to the paper's objective is left out.
    """

    supervision = "labels"

    targets: Targets
    quantization_weight: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_targets(self.targets)
        check_weight("quantization_weight", self.quantization_weight)

    def criterion(self, data: TrainingData, progress: Progress) -> nn.Module:
        codes = class_codes(self.targets, data.classes, self.bits, self.seed)
        # A draw of its own: it must not be the code of a class.
        coins = np.random.default_rng([self.seed, 10]).integers(0, 2, self.bits)
        ties = torch.from_numpy(2.0 * coins - 1).float()
        return CsqCriterion(codes, ties, self.quantization_weight)


class CsqCriterion(nn.Module):
    """Cross-entropy against centers, and quantisation.

    Args:
        codes: the classes' centers, -1 and 1, ``(classes, bits)``.
        ties: bits for items whose classes are divided, ``(bits,)``.
        quantization_weight: as for :class:`Csq`.
    """

    codes: Tensor
    ties: Tensor

    def __init__(self, codes: Tensor, ties: Tensor, quantization_weight: float) -> None:
        super().__init__()
        self.quantization_weight = quantization_weight
        self.register_buffer("codes", codes)
        self.register_buffer("ties", ties)

    def forward(self, encoder: nn.Module, batch: Batch) -> Terms:
        projections = encoder(batch.x)
        members = memberships(batch.y, len(self.codes))
        # An item without any label has no center to go to.
        labelled = members.any(1).to(members.dtype)
        centers = item_codes(members, self.codes, self.ties)
        return {
            "center": central_similarity(projections, centers, labelled),
            "quantization": self.quantization_weight * log_cosh_fence(projections),
        }


def central_similarity(projections: Tensor, centers: Tensor, weights: Tensor) -> Tensor:
    """Return the cross-entropy of bits against each item's hash center, averaged over bits and items.

    (L_C of section 3.3, with h = (tanh(u) + 1) / 2.)

    Args:
        projections: u, ``(n, bits)``.
        centers: -1 and 1, ``(n, bits)``.
        weights: ``(n,)``, of items; 0 leaves an item out.
    """
    # (tanh(u) + 1) / 2 = sigmoid(2u), whose logarithm can be had without rounding to 0.
    targets = (centers + 1) / 2
    entropies = functional.binary_cross_entropy_with_logits(2 * projections, targets, reduction="none").mean(1)
    return (entropies * weights).sum() / weights.sum().clamp(min=1e-12)


def log_cosh_fence(projections: Tensor) -> Tensor:
    """Return the mean of log cosh(|tanh(u)| - 1): a smooth distance of outputs from -1 and 1.

    (L_Q of section 3.3, where |2h - 1| is |tanh(u)|.)
    """
    return torch.log(torch.cosh(torch.tanh(projections).abs() - 1)).mean()
