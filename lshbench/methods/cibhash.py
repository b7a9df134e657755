"""CIBHash: two views of an item should have one code that others don't have, and codes should tell little else.

Qiu, Su, Ou, Yu and Chen, Unsupervised Hashing with Contrastive Information Bottleneck, IJCAI 2021, arXiv 2105.06138.
The loss is NT-Xent on stochastic binary codes of two views, with straight-through gradients, plus beta times the
divergence of the views' bit probabilities, an upper bound of what a code says of its view alone.

The published views are crops, flips and colours of images.  Frozen features have no pixels: here views are made
in feature space, by dropping standardised values and adding Gaussian noise to them; the defaults leave their
deviation at 1.  Codes are drawn, as in the paper; the released code takes signs instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from lshbench.methods.trained import Criterion, HeadHasher
from lshbench.training.constraints import Dropped, Positive, Weight
from lshbench.training.data import Batch, TrainingData
from lshbench.training.loop import Terms
from lshbench.training.losses import straight_through
from lshbench.types import Progress


@dataclass(kw_only=True, eq=False)
class CibHash(HeadHasher):
    """CIBHash: the keys of ``conf/method/cibhash.yaml``.

    Attributes:
        temperature: of NT-Xent over cosines of codes; .3 in the released code.
        beta: weight of the information bottleneck; .001 in the released code.
        dropped: the part of a view's standardised values that is set to 0, their mean.
        noise: deviation of what is added to a view, in deviations of the features.
    """

    supervision = "none"
    smallest_bits = 2  # cosines of one bit have no gradient, so that views can't be told from others

    temperature: Positive
    beta: Weight
    dropped: Dropped
    noise: Weight

    def criterion(self, data: TrainingData, progress: Progress) -> Criterion:
        return self.loss

    def view(self, standard: Tensor) -> Tensor:
        """Return standardised features ``(n, d)``, some dropped and all noisy, drawn from torch's generator."""
        kept = torch.rand_like(standard) >= self.dropped
        return (standard + self.noise * torch.randn_like(standard)) * kept

    def loss(self, encoder: nn.Sequential, batch: Batch) -> Terms:
        """Return NT-Xent of two views' codes, and the divergence of their probabilities."""
        standard = encoder[0](batch.x)
        # Both views in one pass, so that batch normalisation sees one population.
        projections = encoder[1:](torch.cat([self.view(standard), self.view(standard)]))
        codes = stochastic_signs(projections, torch.rand_like(projections))
        count = len(standard)
        first, second = projections[:count], projections[count:]
        divergence = bernoulli_divergence(first, second) + bernoulli_divergence(second, first)
        return {
            "contrast": nt_xent(codes[:count], codes[count:], self.temperature),
            "bottleneck": self.beta / 2 * divergence,
        }


def stochastic_signs(projections: Tensor, uniform: Tensor) -> Tensor:
    """Return codes whose bits are 1 with probability sigmoid(projection), straight through to the probability.

    (The probabilistic binary representation layer, sgn(sigmoid(f) - u), with codes of -1 and 1 for 0 and 1.)

    Args:
        projections: ``(n, bits)``.
        uniform: numbers from [0, 1), shaped alike.
    """
    probabilities = torch.sigmoid(projections)
    return straight_through(torch.where(probabilities > uniform, 1.0, -1.0).to(projections.dtype), probabilities)


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return the normalised cross-entropy of finding each view's other view among all 2n - 1 other views.

    (NT-Xent of SimCLR, Chen et al. 2020, with cosines of codes.)

    Args:
        first, second: codes of two views of the same items, ``(n, bits)``.
        temperature: of the cosines.
    """
    views = functional.normalize(torch.cat([first, second]))
    count = len(first)
    logits = (views @ views.T / temperature).fill_diagonal_(-torch.inf)
    partners = torch.arange(2 * count, device=logits.device).roll(count)
    return functional.cross_entropy(logits, partners)


def bernoulli_divergence(projections: Tensor, reference: Tensor) -> Tensor:
    """Return KL(p || q), summed over bits, averaged over items, for p and q the sigmoids of projections.

    No gradient goes to ``reference``, as in the released code.

    Args:
        projections, reference: ``(n, bits)``.
    """
    reference = reference.detach()
    p = torch.sigmoid(projections)
    # Logarithms of sigmoids, taken directly: those of rounded probabilities are infinite for confident bits.
    set_bits = p * (functional.logsigmoid(projections) - functional.logsigmoid(reference))
    clear_bits = (1 - p) * (functional.logsigmoid(-projections) - functional.logsigmoid(-reference))
    return (set_bits + clear_bits).sum(1).mean()
