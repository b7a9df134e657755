"""OrthoHash: a softmax over cosines of projections with one fixed binary code per class.

Hoe, Ng, Zhang, Chan, Song and Xiang, One Loss for All: Deep Hashing with a Single Cosine Similarity based Learning
Objective, NeurIPS 2021, arXiv 2109.14449.  The target's cosine is reduced by a margin; projections are
batch-normalised, which balances bits.  An item of several labels has its classes in equal parts, each with the margin
(label smoothing, as in the paper); one without a label has no loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

from torch import Tensor, nn

from lshbench.methods.trained import Criterion, HeadHasher
from lshbench.training import losses
from lshbench.training.class_codes import Targets, class_shares, target_codes
from lshbench.training.constraints import Positive, between
from lshbench.training.data import Batch, TrainingData
from lshbench.training.loop import Terms
from lshbench.types import Progress


@dataclass(kw_only=True, eq=False)
class OrthoHash(HeadHasher):
    """OrthoHash: the keys of ``conf/method/orthohash.yaml``.

    Attributes:
        targets: kind of class codes, see :func:`lshbench.training.class_codes.class_codes`.
        margin: taken from the cosine with the target; .2 in the released code.
        scale: of cosines in the softmax; 8 in the released code.
    """

    supervision = "labels"
    smallest_batch = 2  # projections are batch-normalised
    smallest_bits = 2  # the cosine of one bit is -1 or 1, whatever its size: no gradient

    targets: Targets
    margin: Annotated[float, between(0, 2, "from 0 to 2, the range of cosines")]
    scale: Positive

    def build(self, inputs: int) -> nn.Sequential:
        return nn.Sequential(*super().build(inputs), nn.BatchNorm1d(self.bits))

    def criterion(self, data: TrainingData, progress: Progress) -> Criterion:
        return partial(self.loss, target_codes(self.targets, data, self.bits, self.seed))

    def loss(self, codes: Tensor, encoder: nn.Module, batch: Batch) -> Terms:
        """Return the softmax over classes, whose codes, -1 and 1, are ``(classes, bits)``."""
        parts = class_shares(batch.y, len(codes))
        return {"class": losses.class_softmax(encoder(batch.x), codes, parts, self.margin, self.scale)}
