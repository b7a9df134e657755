"""Deep polarized network: each projection is pushed beyond a margin to the side of its class's random target bit.

Fan, Ng, Ju, Zhang and Chan, Deep Polarized Network for Supervised Learning of Accurate Binary Hashing Codes, IJCAI
2020.  The polarization loss, max(0, m - u t) over bits, bounds Hamming distances within and between classes.  Targets
are drawn at random once (the paper's DPN; its DPN-A, which updates them, is not here).  An item of several labels has
the losses of all its classes, as in the released code; one without a label has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from lshbench.methods.trained import Criterion, HeadHasher
from lshbench.training.class_codes import Targets, memberships, target_codes
from lshbench.training.constraints import Positive
from lshbench.training.data import Batch, TrainingData
from lshbench.training.loop import Terms
from lshbench.types import Progress


@dataclass(kw_only=True, eq=False)
class Dpn(HeadHasher):
    """Deep polarized network: the keys of ``conf/method/dpn.yaml``.

    Attributes:
        targets: kind of class codes, see :func:`lshbench.training.class_codes.class_codes`.
        margin: m, how far projections should lie from 0; 1 in the released code.
    """

    supervision = "labels"

    targets: Targets
    margin: Positive

    def criterion(self, data: TrainingData, progress: Progress) -> Criterion:
        return partial(self.loss, target_codes(self.targets, data, self.bits, self.seed))

    def loss(self, codes: Tensor, encoder: nn.Module, batch: Batch) -> Terms:
        """Return the polarization loss against the classes' targets, -1 and 1, ``(classes, bits)``."""
        return {"polarization": polarization(encoder(batch.x), codes, memberships(batch.y, len(codes)), self.margin)}


def polarization(projections: Tensor, class_codes: Tensor, members: Tensor, margin: float) -> Tensor:
    """Return the mean over items of the sum over their classes and mean over bits of max(0, margin - u t).

    Args:
        projections: u, ``(n, bits)``.
        class_codes: targets t, -1 and 1, ``(classes, bits)``.
        members: which classes an item has, float 0 or 1, ``(n, classes)``.
        margin: how far a projection should lie on its target's side.
    """
    # A target has two values, so counts of classes with either stand for the sum over classes.
    upper = members @ (class_codes > 0).to(members.dtype)
    lower = members @ (class_codes < 0).to(members.dtype)
    return (upper * functional.relu(margin - projections) + lower * functional.relu(margin + projections)).mean()
