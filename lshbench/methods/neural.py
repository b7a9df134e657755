"""Neural hashing after PermGNN (Roy et al., AAAI 2021, arXiv 2012.08974): a network trained so that items
that aren't neighbours don't share codes, that bits are balanced, and that outputs lie close to -1 and 1.

:class:`Neural`, :class:`NeuralUnsupervised`
    A variant, with and without labels.  The collision term is a softmax over the batch (neighbours against the
    others), so that neighbours attract, and balance is of each bit over items; fence as published, divided by bits.
:class:`NeuralPaper`
    The published objective: one layer on unit-length features, weights drawn from N(0, 1), per-item bit
    balance, fence and the collision |<b_i, b_j>| of all pairs that aren't neighbours.  Neighbours are merely
    exempt: nothing draws them together.
:class:`NeuralDesign`
    Hidden layers; the collision is the mean over the different-class pairs of highest similarity: the 16 of
    *lowest* cosine between a batch and a second one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from lshbench.errors import wrong_value
from lshbench.methods.base import check_bits
from lshbench.methods.trained import HeadHasher, check_at_least, check_positive, check_supervision
from lshbench.training import auto
from lshbench.training.data import Batch, TrainingData
from lshbench.training.heads import Standardise
from lshbench.training.loop import Terms
from lshbench.training.losses import bit_balance, contrastive, fence, mean_fence
from lshbench.training.neighbors import NeighborGraph, neighbor_graph
from lshbench.training.validation import same_labels
from lshbench.types import Progress, Supervision

HARD_PAIRS = 16
"""Pairs of a batch that the collision of :class:`NeuralDesign` is the mean of."""


@dataclass(kw_only=True, eq=False)
class NeuralHasher(HeadHasher):
    """Base class of the neural methods.

    Attributes:
        balance_weight: of bit balance.
        fence_weight: of the distance of outputs from -1 and 1; collision takes what the two leave of 1.
    """

    balance_weight: float
    fence_weight: float

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("balance_weight", "fence_weight"):
            if not 0 <= getattr(self, key) <= 1:
                raise wrong_value(f"method.{key}", getattr(self, key), "from 0 to 1")
        if self.balance_weight + self.fence_weight > 1:
            expected = f"at most 1 - balance_weight = {1 - self.balance_weight:g}"
            raise wrong_value("method.fence_weight", self.fence_weight, expected)


@dataclass(kw_only=True, eq=False)
class Neural(NeuralHasher):
    """Neural hashing with attraction, trained with labels: the keys of ``conf/method/neural.yaml``.

    Attributes:
        temperature: of the softmax over products divided by the square root of bits; smaller looks at harder pairs.
    """

    supervision = "labels"

    temperature: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("temperature", self.temperature)

    def criterion(self, data: TrainingData, progress: Progress) -> nn.Module:
        return AttractingCriterion(self, data, None)


@dataclass(kw_only=True, eq=False)
class NeuralUnsupervised(NeuralHasher):
    """:class:`Neural` without labels: the keys of ``conf/method/neural_unsupervised.yaml``.

    ``balance_weight`` and ``temperature`` may be ``auto``: see :mod:`lshbench.training.auto`.

    Attributes:
        temperature: as for :class:`Neural`.
        neighbors: nearest neighbours that are looked at; mutual ones stand for items of the same class.
    """

    supervision = "none"

    temperature: float
    neighbors: int

    def __post_init__(self) -> None:
        check_bits(self.bits)
        share = auto.balance_share(self.bits, self.fence_weight)
        self.balance_weight = auto.resolve("balance_weight", self.balance_weight, share)
        self.temperature = auto.resolve("temperature", self.temperature, auto.temperature(self.bits))
        super().__post_init__()
        check_positive("temperature", self.temperature)
        check_at_least("neighbors", self.neighbors, 1)

    def criterion(self, data: TrainingData, progress: Progress) -> nn.Module:
        return AttractingCriterion(self, data, neighbor_graph(data, self.neighbors, self.seed, progress))


@dataclass(kw_only=True, eq=False)
class NeuralPaper(NeuralHasher):
    """Neural hashing as published: the keys of ``conf/method/neural_paper.yaml``.

    Attributes:
        supervision: ``labels``: items of one class are neighbours; ``none``: mutual nearest neighbours are.
        neighbors: nearest neighbours that are looked at without labels.
    """

    supervision: Supervision = field()
    neighbors: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_supervision(self.supervision)
        check_at_least("neighbors", self.neighbors, 1)

    def graph(self, data: TrainingData, progress: Progress) -> NeighborGraph | None:
        """Return the neighbours that stand for labels, or None with labels."""
        if self.supervision == "labels":
            return None
        return neighbor_graph(data, self.neighbors, self.seed, progress)

    def build(self, inputs: int) -> nn.Sequential:
        layers = [Standardise(inputs), UnitLength(), *self.head.build(inputs, self.bits)]
        for layer in layers:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight)
        return nn.Sequential(*layers)

    def criterion(self, data: TrainingData, progress: Progress) -> nn.Module:
        return CollisionCriterion(self, data, self.graph(data, progress))


@dataclass(kw_only=True, eq=False)
class NeuralDesign(NeuralPaper):
    """Neural hashing with hidden layers and hard pairs: the keys of ``conf/method/neural_design.yaml``."""

    def build(self, inputs: int) -> nn.Sequential:
        return HeadHasher.build(self, inputs)

    def criterion(self, data: TrainingData, progress: Progress) -> nn.Module:
        return HardCollisionCriterion(self, data, self.graph(data, progress))


class UnitLength(nn.Module):
    """Scales each item to length 1, so that weights from N(0, 1) give ``tanh`` inputs of deviation 1."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.normalize(x)


class NeuralCriterion(nn.Module):
    """Base class of the objectives: which pairs are neighbours, and the weights."""

    def __init__(self, method: NeuralHasher, data: TrainingData, graph: NeighborGraph | None) -> None:
        super().__init__()
        self.balance_weight, self.fence_weight = method.balance_weight, method.fence_weight
        self.collision_weight = 1 - self.balance_weight - self.fence_weight
        self.data, self.graph = data, graph

    def neighbors(self, first: Batch, second: Batch) -> Tensor:
        """Return which pairs of two batches' items are neighbours, bool."""
        if self.graph is None:
            return same_labels(first.y, second.y)
        return torch.from_numpy(self.graph.related(first.rows, second.rows)).to(first.x.device)


class CollisionCriterion(NeuralCriterion):
    """The published objective, as published: sums over the batch divided by n, n and n^2, nothing by bits."""

    def forward(self, encoder: nn.Module, batch: Batch) -> Terms:
        codes = torch.tanh(encoder(batch.x))
        return permgnn(codes, ~self.neighbors(batch, batch), self.balance_weight, self.fence_weight)


class HardCollisionCriterion(NeuralCriterion):
    """Collision of the most dissimilar non-neighbours between a batch and a random second one."""

    def forward(self, encoder: nn.Module, batch: Batch) -> Terms:
        rows = batch.generator.integers(len(self.data), size=len(batch.rows))
        other = Batch(*self.data.take(rows), rows, batch.generator)
        codes, other_codes = torch.tanh(encoder(batch.x)), torch.tanh(encoder(other.x))
        cosines = functional.normalize(batch.x) @ functional.normalize(other.x).T
        cosines = cosines.masked_fill(self.neighbors(batch, other), torch.inf)
        chosen = cosines.flatten().topk(min(HARD_PAIRS, cosines.numel()), largest=False).indices
        chosen = chosen[torch.isfinite(cosines.flatten()[chosen])]
        products = (codes @ other_codes.T).flatten()[chosen].abs()
        return {
            "balance": self.balance_weight * item_balance(codes) / len(codes),
            "fence": self.fence_weight * fence(codes) / len(codes),
            "collision": self.collision_weight * products.sum() / max(len(chosen), 1),
        }


class AttractingCriterion(NeuralCriterion):
    """The variant's objective: neighbours against the rest of the batch in a softmax, bits balanced over items."""

    def __init__(self, method: Neural | NeuralUnsupervised, data: TrainingData, graph: NeighborGraph | None) -> None:
        super().__init__(method, data, graph)
        # Products of unrelated codes spread as the square root of their length.
        self.temperature = method.temperature / method.bits**0.5

    def forward(self, encoder: nn.Module, batch: Batch) -> Terms:
        if self.graph is None:
            codes = torch.tanh(encoder(batch.x))
            collision = contrastive(codes, codes, self.neighbors(batch, batch), self.temperature)
        else:
            rows = self.graph.draw(batch.rows, batch.generator)
            partners = Batch(*self.data.take(rows), rows, batch.generator)
            codes, partner_codes = torch.tanh(encoder(torch.cat([batch.x, partners.x]))).chunk(2)
            relevant = self.neighbors(batch, partners)
            relevant.fill_diagonal_(True)
            collision = contrastive(codes, partner_codes, relevant, self.temperature, paired=True)
        return {
            "balance": self.balance_weight * bit_balance(codes),
            "fence": self.fence_weight * mean_fence(codes),
            "collision": self.collision_weight * collision,
        }


def item_balance(codes: Tensor) -> Tensor:
    """Return D1 = sum_i | sum_h b_ih |: each item should have as many bits set as not."""
    return codes.sum(1).abs().sum()


def collision(codes: Tensor, apart: Tensor) -> Tensor:
    """Return D3 = sum over ordered pairs that should be apart of | <b_i, b_j> |.

    Args:
        codes: ``(n, bits)``.
        apart: bool ``(n, n)``, true for pairs of non-neighbours; the diagonal is ignored.
    """
    products = (codes @ codes.T).abs().masked_fill(~apart, 0)
    return products.sum() - products.diagonal().sum()


def permgnn(codes: Tensor, apart: Tensor, balance_weight: float, fence_weight: float) -> dict[str, Tensor]:
    """Return the published objective's three terms: weights add up to 1, sums are divided by n, n and n^2."""
    count = len(codes)
    return {
        "balance": balance_weight / count * item_balance(codes),
        "fence": fence_weight / count * fence(codes),
        "collision": (1 - balance_weight - fence_weight) / count**2 * collision(codes, apart),
    }
