"""Deep polarized network: each projection is pushed beyond a margin to the side of its class's random target bit.

Fan, Ng, Ju, Zhang and Chan, Deep Polarized Network for Supervised Learning of Accurate Binary Hashing Codes, IJCAI
2020.  The polarization loss, max(0, m - u t) over bits, bounds Hamming distances within and between classes.  Targets
are drawn at random once (the paper's DPN; its DPN-A, which updates them, is not here); an item of several classes has
the losses of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lshbench.methods import peer_losses
from lshbench.training.class_codes import Targets, check_targets, class_codes, memberships
from lshbench.training.data import Batch, TrainingData
from lshbench.training.heads import HeadHasher, check_positive
from lshbench.training.loop import Terms
from lshbench.types import Progress


class Dpn(HeadHasher):
    """Deep polarized network; the arguments are the keys of ``conf/method/dpn.yaml``.

    Args:
        targets: kind of class codes, see :func:`lshbench.training.class_codes.class_codes`.
        margin: m, how far projections should lie from 0; 1 in the released code.
    """

    supervision = "labels"

    def __init__(
        self,
        bits: int,
        seed: int = 0,
        device: str = "auto",
        targets: Targets = "bernoulli",
        margin: float = 1.0,
        head: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(bits, seed, device, head, training)
        check_targets(targets)
        check_positive("margin", margin)
        self.targets, self.margin = targets, margin

    def criterion(self, data: TrainingData, progress: Progress) -> nn.Module:
        return DpnCriterion(class_codes(self.targets, data.classes, self.bits, self.seed), self.margin)


class DpnCriterion(nn.Module):
    """The polarization loss.

    Args:
        codes: the classes' targets, -1 and 1, ``(classes, bits)``.
        margin: as for :class:`Dpn`.
    """

    codes: Tensor

    def __init__(self, codes: Tensor, margin: float) -> None:
        super().__init__()
        self.margin = margin
        self.register_buffer("codes", codes)

    def forward(self, encoder: nn.Module, batch: Batch) -> Terms:
        members = memberships(batch.y, len(self.codes))
        return {"polarization": peer_losses.polarization(encoder(batch.x), self.codes, members, self.margin)}
