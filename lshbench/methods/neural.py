"""Neural hashing after PermGNN (Roy et al., AAAI 2021, arXiv 2012.08974): a network trained so that items
that aren't neighbours don't share codes, that bits are balanced, and that outputs lie close to -1 and 1.

:class:`Neural`, :class:`NeuralUnsupervised`
    A variant, with and without labels.  The collision term is a softmax over the batch (neighbours against the
    others), so that neighbours attract, and balance is of each bit over items; fence as published, divided by bits.
    Without labels an item is a neighbour by degrees: by cosines averaged over neighbourhoods.
:class:`NeuralPaper`
    The published objective: one layer on unit-length features, weights drawn from N(0, 1), per-item bit
    balance, fence and the collision |<b_i, b_j>| of all pairs that aren't neighbours.  Neighbours are merely
    exempt: nothing draws them together.
:class:`NeuralDesign`
    Hidden layers; the collision is the mean over the different-class pairs of highest similarity: the 16 of
    *lowest* cosine between a batch and a second one.

Where labels decide, an item of several labels is a neighbour of every item that shares one; one without a label has
none.  The paper takes neighbours as they are given.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from lshbench.errors import wrong_value
from lshbench.methods.base import check_bits
from lshbench.methods.trained import Criterion, HeadHasher, NeighborhoodHasher
from lshbench.training import auto
from lshbench.training.constraints import Count, LabelsOrNone, Positive, Share
from lshbench.training.data import Batch, TrainingData
from lshbench.training.heads import Standardise
from lshbench.training.loop import Terms
from lshbench.training.losses import bit_balance, contrastive, fence, mean_fence
from lshbench.training.neighbors import NeighborGraph, neighbor_graph
from lshbench.training.validation import same_labels
from lshbench.types import Progress

HARD_PAIRS = 16
"""Pairs of a batch that the collision of :class:`NeuralDesign` is the mean of."""


@dataclass(kw_only=True, eq=False)
class NeuralHasher(HeadHasher):
    """Base class of the neural methods.

    Attributes:
        balance_weight: of bit balance.
        fence_weight: of the distance of outputs from -1 and 1; collision takes what the two leave of 1.
    """

    balance_weight: Share
    fence_weight: Share

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.balance_weight + self.fence_weight > 1:
            expected = f"at most 1 - balance_weight = {1 - self.balance_weight:g}"
            raise wrong_value("method.fence_weight", self.fence_weight, expected)


@dataclass(kw_only=True, eq=False)
class AttractingHasher(NeuralHasher):
    """Base class of the variants with attraction.

    Attributes:
        temperature: of the softmax over products divided by the square root of bits; smaller looks at harder pairs.
    """

    temperature: Positive

    def terms(self, codes: Tensor, partners: Tensor, relevant: Tensor, paired: bool) -> Terms:
        """Return balance, fence, and a softmax of the relevant against the rest of the batch as the collision.

        Args:
            codes, partners: of a batch, and of what it is to find, ``(n, bits)``.
            relevant: which pairs are, bool, or by how much, float, ``(n, n)``.
            paired: whether row i of ``partners`` is another item than row i of ``codes``.
        """
        # Products of unrelated codes spread as the square root of their length.
        temperature = self.temperature / self.bits**0.5
        collision = contrastive(codes, partners, relevant, temperature, paired)
        return {
            "balance": self.balance_weight * bit_balance(codes),
            "fence": self.fence_weight * mean_fence(codes),
            "collision": (1 - self.balance_weight - self.fence_weight) * collision,
        }


@dataclass(kw_only=True, eq=False)
class Neural(AttractingHasher):
    """Neural hashing with attraction, trained with labels: the keys of ``conf/method/neural.yaml``.

    ``temperature`` may be ``auto``: see :mod:`lshbench.training.auto`.
    """

    supervision = "labels"

    def __post_init__(self) -> None:
        check_bits(self.bits)
        self.temperature = auto.temperature(self.temperature, self.bits, auto.CLASSES_APART)
        super().__post_init__()

    def criterion(self, data: TrainingData, progress: Progress) -> Criterion:
        return self.loss

    def loss(self, encoder: nn.Module, batch: Batch) -> Terms:
        """Return the terms of a batch, in which items of one class are to find each other."""
        codes = torch.tanh(encoder(batch.x))
        return self.terms(codes, codes, same_labels(batch.y, batch.y), paired=False)


@dataclass(kw_only=True, eq=False)
class NeuralUnsupervised(NeighborhoodHasher, AttractingHasher):
    """:class:`Neural` without labels: the keys of ``conf/method/neural_unsupervised.yaml``."""

    def criterion(self, data: TrainingData, progress: Progress) -> Criterion:
        nearby = self.neighborhoods(data, progress)

        def loss(encoder: nn.Module, batch: Batch) -> Terms:
            partners, relevance = nearby.partners(batch, data)
            codes, partner_codes = torch.tanh(encoder(torch.cat([batch.x, partners]))).chunk(2)
            return self.terms(codes, partner_codes, relevance, paired=True)

        return loss


@dataclass(kw_only=True, eq=False)
class NeuralPaper(NeuralHasher):
    """Neural hashing as published: the keys of ``conf/method/neural_paper.yaml``.

    Attributes:
        supervision: ``labels``: items of one class are neighbours; ``none``: mutual nearest neighbours are.
        neighbors: nearest neighbours that are looked at without labels.
    """

    supervision: LabelsOrNone = field()
    neighbors: Count

    def graph(self, data: TrainingData, progress: Progress) -> NeighborGraph | None:
        """Return the neighbours that stand for labels, or None with labels."""
        return None if self.supervision == "labels" else neighbor_graph(data, self.neighbors, self.seed, progress)

    def criterion(self, data: TrainingData, progress: Progress) -> Criterion:
        return partial(self.loss, data, self.graph(data, progress))

    def build(self, inputs: int) -> nn.Sequential:
        layers = [Standardise(inputs), UnitLength(), *self.head.build(inputs, self.bits)]
        for layer in layers:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight)
        return nn.Sequential(*layers)

    def loss(self, data: TrainingData, graph: NeighborGraph | None, encoder: nn.Module, batch: Batch) -> Terms:
        """Return the published objective, as published: sums over the batch divided by n, n and n^2, not by bits."""
        codes = torch.tanh(encoder(batch.x))
        return permgnn(codes, ~are_neighbors(graph, batch, batch), self.balance_weight, self.fence_weight)


@dataclass(kw_only=True, eq=False)
class NeuralDesign(NeuralPaper):
    """Neural hashing with hidden layers and hard pairs: the keys of ``conf/method/neural_design.yaml``."""

    def build(self, inputs: int) -> nn.Sequential:
        return HeadHasher.build(self, inputs)

    def loss(self, data: TrainingData, graph: NeighborGraph | None, encoder: nn.Module, batch: Batch) -> Terms:
        """Return the loss, its collision that of the most dissimilar non-neighbours of a batch and a random second."""
        rows = batch.generator.integers(len(data), size=len(batch.rows))
        other = Batch(*data.take(rows), rows, batch.generator)
        codes, other_codes = torch.tanh(encoder(batch.x)), torch.tanh(encoder(other.x))
        cosines = functional.normalize(batch.x) @ functional.normalize(other.x).T
        cosines = cosines.masked_fill(are_neighbors(graph, batch, other), torch.inf)
        chosen = cosines.flatten().topk(min(HARD_PAIRS, cosines.numel()), largest=False).indices
        chosen = chosen[torch.isfinite(cosines.flatten()[chosen])]
        products = (codes @ other_codes.T).flatten()[chosen].abs()
        return {
            "balance": self.balance_weight * item_balance(codes) / len(codes),
            "fence": self.fence_weight * fence(codes) / len(codes),
            "collision": (1 - self.balance_weight - self.fence_weight) * products.sum() / max(len(chosen), 1),
        }


class UnitLength(nn.Module):
    """Scales each item to length 1, so that weights from N(0, 1) give ``tanh`` inputs of deviation 1."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.normalize(x)


def are_neighbors(graph: NeighborGraph | None, first: Batch, second: Batch) -> Tensor:
    """Return which pairs of two batches' items are neighbours, by the graph or else by labels, bool ``(n, m)``."""
    if graph is None:
        return same_labels(first.y, second.y)
    return torch.from_numpy(graph.related(first.rows, second.rows)).to(first.x.device)


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
