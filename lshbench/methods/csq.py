"""Central similarity quantization: each bit is trained to be that of a hash center, one for each class.

Yuan, Wang, Zhang, Tay, Jie, Liu and Feng, Central Similarity Quantization for Efficient Image and Video Retrieval,
CVPR 2020, arXiv 1908.00347.  Centers are rows of a Hadamard matrix, which lie half their bits apart, or random codes
where there is none; the loss is the cross-entropy of bits, plus lambda times a smooth distance of outputs from -1
and 1.  An item of several labels goes to what most of its classes' centers have in each bit, equal votes to a random
center drawn once, as in the released code.  One without a label has no center, so that only its distance counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lshbench.methods.trained import Criterion, HeadHasher
from lshbench.training.class_codes import Targets, item_codes, memberships, target_codes
from lshbench.training.constraints import Weight
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
    quantization_weight: Weight

    def centers(self, data: TrainingData) -> tuple[Tensor, Tensor]:
        """Return the classes' centers ``(classes, bits)``, and bits for divided items ``(bits,)``, all -1 and 1."""
        codes = target_codes(self.targets, data, self.bits, self.seed)
        # A draw of its own: it must not be the code of a class.
        coins = np.random.default_rng([self.seed, 10]).integers(0, 2, self.bits)
        return codes, torch.from_numpy(2.0 * coins - 1).float().to(self.device)

    def criterion(self, data: TrainingData, progress: Progress) -> Criterion:
        return partial(self.loss, *self.centers(data))

    def loss(self, codes: Tensor, ties: Tensor, encoder: nn.Module, batch: Batch) -> Terms:
        """Return the cross-entropy against what :meth:`centers` returned, and quantisation."""
        projections = encoder(batch.x)
        members = memberships(batch.y, len(codes))
        # An item without any label has no center to go to.
        labelled = members.any(1).to(members.dtype)
        return {
            "center": central_similarity(projections, item_codes(members, codes, ties), labelled),
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
