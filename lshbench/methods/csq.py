"""Central similarity quantization: each bit is trained to be that of a hash center, one for each class.

Yuan, Wang, Zhang, Tay, Jie, Liu and Feng, Central Similarity Quantization for Efficient Image and Video Retrieval,
CVPR 2020, arXiv 1908.00347.  Centers are rows of a Hadamard matrix, which lie half their bits apart, or random codes
where there is none; the loss is the cross-entropy of bits, plus lambda times a smooth distance of outputs from -1
and 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lshbench.methods import peer_losses
from lshbench.training.class_codes import Targets, check_targets, class_codes, item_codes, memberships
from lshbench.training.data import Batch, TrainingData
from lshbench.training.heads import HeadHasher, check_weight
from lshbench.training.loop import Terms
from lshbench.types import Progress


class Csq(HeadHasher):
    """Central similarity quantization; the arguments are the keys of ``conf/method/csq.yaml``.

    Args:
        targets: kind of hash centers, see :func:`lshbench.training.class_codes.class_codes`.
        quantization_weight: lambda; .05 in the released code, whose distance is the square, about twice this one.  The
            pairwise loss that the code adds to the paper's objective is left out.
    """

    supervision = "labels"

    def __init__(
        self,
        bits: int,
        seed: int = 0,
        device: str = "auto",
        targets: Targets = "hadamard",
        quantization_weight: float = 0.05,
        head: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(bits, seed, device, head, training)
        check_targets(targets)
        check_weight("quantization_weight", quantization_weight)
        self.targets, self.quantization_weight = targets, quantization_weight

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
            "center": peer_losses.central_similarity(projections, centers, labelled),
            "quantization": self.quantization_weight * peer_losses.log_cosh_fence(projections),
        }
