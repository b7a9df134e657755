"""Neural hashing after PermGNN (Roy et al., AAAI 2021, arXiv 2012.08974): a network trained so that items
that aren't neighbours don't share codes, that bits are balanced, and that outputs lie close to -1 and 1.

Three recipes:

``paper``
    The published objective: one layer on unit-length features, weights drawn from N(0, 1), per-item bit
    balance, fence and the collision |<b_i, b_j>| of all pairs that aren't neighbours.  Neighbours are merely
    exempt: nothing draws them together.
``design``
    Hidden layers 1024, 512 and 256; the collision is the mean over the different-class pairs of highest
    similarity: the 16 of *lowest* cosine between a batch and a second one.
``default``
    A variant.  The collision term becomes a softmax over the batch (neighbours against the others), so that
    neighbours attract, and balance is of each bit over items; fence as published, divided by bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lshbench.errors import wrong_value
from lshbench.methods.base import check_bits
from lshbench.training import losses
from lshbench.training.data import Batch, TrainingData
from lshbench.training.heads import Components, Head, HeadHasher, Standardise, check_positive, without_effect
from lshbench.training.loop import Terms
from lshbench.training.neighbors import NeighborGraph, nearest_neighbors
from lshbench.training.settings import Training
from lshbench.training.validation import same_labels
from lshbench.types import Progress, Supervision

HARD_PAIRS = 16
"""Pairs of a batch that the ``design`` recipe's collision is the mean of."""

NEIGHBOR_COMPONENTS = 256
"""Principal components that cosines of neighbours are taken of."""


@dataclass(frozen=True)
class Recipe:
    """What a recipe sets; see the keys of ``conf/method/neural.yaml``."""

    head: Head
    training: Training
    balance_weight: float
    fence_weight: float
    temperature: float = 1.0


RECIPES = {
    "default": Recipe(Head(), Training(), balance_weight=0.05, fence_weight=0.05),
    "paper": Recipe(
        Head(hidden=(), batch_norm=False, dropout=0.0),
        Training(
            epochs=200,
            batch_size=128,
            optimizer="sgd",
            learning_rate=0.05,
            schedule="constant",
            weight_decay=0.0,
            patience=50,
        ),
        balance_weight=0.01,
        fence_weight=0.01,
    ),
    "design": Recipe(
        Head(hidden=(1024, 512, 256), batch_norm=False, activation="relu", dropout=0.3),
        Training(
            epochs=10,
            batch_size=64,
            optimizer="adam",
            learning_rate=1e-5,
            schedule="constant",
            weight_decay=1e-4,
        ),
        balance_weight=0.01,
        fence_weight=0.01,
    ),
}


def without_labels(bits: int) -> Recipe:
    """Return the default recipe where neighbours stand for labels."""
    ratio, fence = losses.stronger_balance(bits), 0.01
    return replace(
        RECIPES["default"],
        training=Training(epochs=10),
        balance_weight=(1 - fence) * ratio / (1 + ratio),
        fence_weight=fence,
        temperature=losses.softer_temperature(bits),
    )


class Neural(HeadHasher):
    """Neural hashing; the arguments are the keys of ``conf/method/neural.yaml``, None meaning what the recipe
    says.
    """

    def __init__(
        self,
        bits: int,
        seed: int = 0,
        device: str = "auto",
        recipe: str = "default",
        supervision: Supervision = "labels",
        neighbors: int = 100,
        balance_weight: float | None = None,
        fence_weight: float | None = None,
        temperature: float | None = None,
        head: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
    ) -> None:
        check_bits(bits)
        if recipe not in RECIPES:
            raise wrong_value("method.recipe", recipe, "default, paper or design")
        if supervision not in ("labels", "none"):
            raise wrong_value("method.supervision", supervision, "labels or none")
        if neighbors < 1:
            raise wrong_value("method.neighbors", neighbors, "at least 1")
        if temperature is not None:
            if recipe != "default":
                raise without_effect("temperature", temperature, f"method.recipe={recipe}")
            check_positive("temperature", temperature)
        chosen = without_labels(bits) if recipe == "default" and supervision == "none" else RECIPES[recipe]
        self.default_head, self.default_training = chosen.head, chosen.training
        super().__init__(bits, seed, device, head, training)
        self.recipe, self.supervision, self.neighbors = recipe, supervision, neighbors
        self.temperature = chosen.temperature if temperature is None else temperature
        self.balance_weight = chosen.balance_weight if balance_weight is None else balance_weight
        self.fence_weight = chosen.fence_weight if fence_weight is None else fence_weight
        for key in ("balance_weight", "fence_weight"):
            if not 0 <= getattr(self, key) <= 1:
                raise wrong_value(f"method.{key}", getattr(self, key), "from 0 to 1")
        if self.balance_weight + self.fence_weight > 1:
            raise wrong_value(
                "method.fence_weight",
                self.fence_weight,
                f"at most 1 - balance_weight = {1 - self.balance_weight:g}",
            )

    def in_effect(self) -> dict[str, Any]:
        names = ["balance_weight", "fence_weight", *(["temperature"] if self.recipe == "default" else [])]
        return super().in_effect() | {name: getattr(self, name) for name in names}

    def build(self, inputs: int) -> nn.Sequential:
        if self.recipe != "paper":
            return super().build(inputs)
        layers = [Standardise(inputs), UnitLength(), *self.head.build(inputs, self.bits)]
        for layer in layers:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight)
        return nn.Sequential(*layers)

    def criterion(self, data: TrainingData, progress: Progress) -> nn.Module:
        graph = None
        if self.supervision == "none":
            graph = neighbor_graph(data, self.neighbors, self.seed, progress)
        kinds = {
            "default": AttractingCriterion,
            "paper": CollisionCriterion,
            "design": HardCollisionCriterion,
        }
        return kinds[self.recipe](self, data, graph)


def neighbor_graph(data: TrainingData, count: int, seed: int, progress: Progress) -> NeighborGraph:
    """Return the mutual nearest neighbours of the training part, by cosine of standardised features.

    Cosines are taken of the leading principal components, which hold nearly all of them at a fifth of the work.
    """
    standardise = Standardise(data.inputs)
    standardise.learn(data.source)
    components = Components(data.inputs, min(NEIGHBOR_COMPONENTS, data.inputs), 1.0)
    components.learn(standardise, data.source, seed)
    reduce = nn.Sequential(standardise, components).to(data.device)
    blocks = np.array_split(np.arange(len(data)), max(1, len(data) // 8192))
    vectors = torch.cat([reduce(data.take(rows)[0]) for rows in blocks])
    return NeighborGraph(nearest_neighbors(vectors, count, progress))


class UnitLength(nn.Module):
    """Scales each item to length 1, so that weights from N(0, 1) give ``tanh`` inputs of deviation 1."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.normalize(x)


class NeuralCriterion(nn.Module):
    """What the recipes' objectives share: which pairs are neighbours, and the weights."""

    def __init__(self, method: Neural, data: TrainingData, graph: NeighborGraph | None) -> None:
        super().__init__()
        self.balance_weight, self.fence_weight = method.balance_weight, method.fence_weight
        self.collision_weight = 1 - self.balance_weight - self.fence_weight
        # Products of unrelated codes spread as the square root of their length.
        self.temperature = method.temperature / method.bits**0.5
        self.data, self.graph = data, graph

    def neighbors(self, first: Batch, second: Batch) -> Tensor:
        """Return which pairs of two batches' items are neighbours, bool."""
        if self.graph is None:
            return same_labels(first.y, second.y)
        return torch.from_numpy(self.graph.related(first.rows, second.rows)).to(first.x.device)

    def partners(self, batch: Batch) -> Batch:
        """Return a neighbour of each item."""
        assert self.graph is not None
        rows = self.graph.draw(batch.rows, batch.generator)
        return Batch(*self.data.take(rows), rows, batch.generator)


class CollisionCriterion(NeuralCriterion):
    """The published objective, as published: sums over the batch divided by n, n and n^2, nothing by bits."""

    def forward(self, encoder: nn.Module, batch: Batch) -> Terms:
        codes = torch.tanh(encoder(batch.x))
        return losses.permgnn(codes, ~self.neighbors(batch, batch), self.balance_weight, self.fence_weight)


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
            "balance": self.balance_weight * losses.item_balance(codes) / len(codes),
            "fence": self.fence_weight * losses.fence(codes) / len(codes),
            "collision": self.collision_weight * products.sum() / max(len(chosen), 1),
        }


class AttractingCriterion(NeuralCriterion):
    """The variant: neighbours against the rest of the batch in a softmax, bits balanced over items."""

    def forward(self, encoder: nn.Module, batch: Batch) -> Terms:
        if self.graph is None:
            codes = torch.tanh(encoder(batch.x))
            collision = losses.contrastive(codes, codes, self.neighbors(batch, batch), self.temperature)
        else:
            partners = self.partners(batch)
            codes, partner_codes = torch.tanh(encoder(torch.cat([batch.x, partners.x]))).chunk(2)
            relevant = self.neighbors(batch, partners)
            relevant.fill_diagonal_(True)
            collision = losses.contrastive(codes, partner_codes, relevant, self.temperature, paired=True)
        return {
            "balance": self.balance_weight * losses.bit_balance(codes),
            "fence": self.fence_weight * losses.mean_fence(codes),
            "collision": self.collision_weight * collision,
        }
