"""CIBHash: two views of an item should have one code that others don't have, and codes should tell little else.

Qiu, Su, Ou, Yu and Chen, Unsupervised Hashing with Contrastive Information Bottleneck, IJCAI 2021, arXiv 2105.06138.
The loss is NT-Xent on stochastic binary codes of two views, with straight-through gradients, plus beta times the
divergence of the views' bit probabilities, an upper bound of what a code says of its view alone.

The published views are crops, flips and colours of images.  Frozen features have no pixels: here views are made
in feature space, by dropping standardised values and adding Gaussian noise to them; the defaults leave their
deviation at 1.  Codes are drawn, as in the paper; the released code takes signs instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lshbench.errors import wrong_value
from lshbench.methods import peer_losses
from lshbench.training.data import Batch, TrainingData
from lshbench.training.heads import HeadHasher, check_positive, check_weight
from lshbench.training.loop import Terms
from lshbench.types import Progress


class CibHash(HeadHasher):
    """CIBHash; the arguments are the keys of ``conf/method/cibhash.yaml``.

    Args:
        temperature: of NT-Xent over cosines of codes; .3 in the released code.
        beta: weight of the information bottleneck; .001 in the released code.
        dropped: the part of a view's standardised values that is set to 0, their mean.
        noise: deviation of what is added to a view, in deviations of the features.
    """

    supervision = "none"
    smallest_bits = 2  # cosines of one bit have no gradient, so that views can't be told from others

    def __init__(
        self,
        bits: int,
        seed: int = 0,
        device: str = "auto",
        temperature: float = 0.3,
        beta: float = 0.001,
        dropped: float = 0.2,
        noise: float = 0.5,
        head: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(bits, seed, device, head, training)
        check_positive("temperature", temperature)
        check_weight("beta", beta)
        if not 0 <= dropped < 1:
            raise wrong_value("method.dropped", dropped, "at least 0 and below 1")
        check_weight("noise", noise)
        self.temperature, self.beta, self.dropped, self.noise = temperature, beta, dropped, noise

    def criterion(self, data: TrainingData, progress: Progress) -> nn.Module:
        return CibHashCriterion(self)


class CibHashCriterion(nn.Module):
    """NT-Xent of two views' codes, and the divergence of their probabilities."""

    def __init__(self, method: CibHash) -> None:
        super().__init__()
        self.temperature, self.beta = method.temperature, method.beta
        self.dropped, self.noise = method.dropped, method.noise

    def view(self, standard: Tensor) -> Tensor:
        """Return standardised features ``(n, d)``, some dropped and all noisy, drawn from torch's generator."""
        kept = torch.rand_like(standard) >= self.dropped
        return (standard + self.noise * torch.randn_like(standard)) * kept

    def forward(self, encoder: nn.Sequential, batch: Batch) -> Terms:
        standard = encoder[0](batch.x)
        # Both views in one pass, so that batch normalisation sees one population.
        projections = encoder[1:](torch.cat([self.view(standard), self.view(standard)]))
        codes = peer_losses.stochastic_signs(projections, torch.rand_like(projections))
        count = len(standard)
        first, second = projections[:count], projections[count:]
        divergence = peer_losses.bernoulli_divergence(first, second) + peer_losses.bernoulli_divergence(second, first)
        return {
            "contrast": peer_losses.nt_xent(codes[:count], codes[count:], self.temperature),
            "bottleneck": self.beta / 2 * divergence,
        }
