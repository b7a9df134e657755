"""OrthoHash: a softmax over cosines of projections with one fixed binary code per class.

Hoe, Ng, Zhang, Chan, Song and Xiang, One Loss for All: Deep Hashing with a Single Cosine Similarity based Learning
Objective, NeurIPS 2021, arXiv 2109.14449.  The target's cosine is reduced by a margin; projections are
batch-normalised, which balances bits.  An item of several classes has them in equal parts (label smoothing, as in the
released code).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from lshbench.errors import wrong_value
from lshbench.methods.trained import HeadHasher, check_positive
from lshbench.training import losses
from lshbench.training.class_codes import Targets, check_targets, class_codes, memberships
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
    margin: float
    scale: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_targets(self.targets)
        if not 0 <= self.margin <= 2:
            raise wrong_value("method.margin", self.margin, "from 0 to 2, the range of cosines")
        check_positive("scale", self.scale)

    def build(self, inputs: int) -> nn.Sequential:
        return nn.Sequential(*super().build(inputs), nn.BatchNorm1d(self.bits))

    def criterion(self, data: TrainingData, progress: Progress) -> nn.Module:
        codes = class_codes(self.targets, data.classes, self.bits, self.seed)
        return OrthoHashCriterion(codes, self.margin, self.scale)


class OrthoHashCriterion(nn.Module):
    """The softmax over classes.

    Args:
        codes: -1 and 1, ``(classes, bits)``.
        margin, scale: as for :class:`OrthoHash`.
    """

    codes: Tensor

    def __init__(self, codes: Tensor, margin: float, scale: float) -> None:
        super().__init__()
        self.margin, self.scale = margin, scale
        self.register_buffer("codes", codes)

    def forward(self, encoder: nn.Module, batch: Batch) -> Terms:
        parts = functional.normalize(memberships(batch.y, len(self.codes)), p=1)
        return {"class": losses.class_softmax(encoder(batch.x), self.codes, parts, self.margin, self.scale)}
