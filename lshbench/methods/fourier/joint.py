"""FourierHashNet (Roy et al., NeurIPS 2023, "Locality Sensitive Hashing in Fourier Frequency Domain for Soft
Set Containment Search"): features are mapped so that products of the two sides' maps estimate a dominance
similarity, the maps are reduced by an encoder on each side, and a hash layer that the sides share gives the
code.

Four recipes:

``paper``
    The published objective in its two stages (:mod:`lshbench.methods.fourier.staged`): T = 3, frequencies in
    +-100, ten of each component, a linear reduction to ten dimensions trained by the cross-entropy of (cos +
    1) / 2 on pairs; then the hash layer by ranking, fence and balance of one query against the gallery, the
    positives being those of least hinge distance.  The released code's other losses are ``reduction_loss``
    (squared differences, or a ranking of pairs) and ``hash_objective=query_agnostic``: fence, decorrelation
    and balance of a batch of both sides' codes, which asks no code to be near another.
``design``
    The two stages without the map: hidden layers 1024, 512, 256 and 128, a reduction of 512.
``default``
    A variant that is trained in one go: a narrow band of frequencies, the standardised features beside the
    map, a wide reduction, and a ranking term that is a softmax over the batch.  With labels, a term draws
    codes to one code per class.  The gallery's encoder has no dropout, so that it fits its items closely; a
    query is reduced by both encoders, and a mean of the two, mostly of its own, is hashed.
``transfer``
    The default's network for classes that training has not seen: labels choose the directions that tell
    classes apart (:mod:`lshbench.methods.fourier.discriminant`), and codes are to rank a batch as cosines along these
    directions do.  No term names a class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lshbench.errors import wrong_value
from lshbench.methods.base import BinaryHasher
from lshbench.methods.fourier.discriminant import Discriminant
from lshbench.methods.fourier.folded import FoldedNetwork
from lshbench.methods.fourier.map import sample_frequencies
from lshbench.methods.fourier.network import FourierNetwork, Shape
from lshbench.methods.fourier.staged import REDUCTION_LOSSES, train_in_stages
from lshbench.methods.neural import neighbor_graph
from lshbench.runtime.device import resolve_device
from lshbench.training import losses
from lshbench.training.class_codes import class_codes, memberships
from lshbench.training.data import Batch, TrainingData
from lshbench.training.heads import (
    Head,
    arrays,
    check_batch_size,
    check_positive,
    check_weight,
    load_arrays,
    project_block,
    without_effect,
)
from lshbench.training.loop import Terms, seeded, train_model
from lshbench.training.neighbors import NeighborGraph
from lshbench.training.settings import Training
from lshbench.training.validation import same_labels
from lshbench.types import Features, Progress, Side, Supervision


@dataclass(frozen=True)
class Recipe:
    """What a recipe sets; the keys of ``conf/method/fourier.yaml`` that may be left null."""

    head: Head
    training: Training
    map_dim: int = 128
    frequencies: int = 1
    threshold: float = 3.0
    band: float = 1.0
    scale: float = 1.0
    skip: bool = True
    unit_length: bool = False
    fence_weight: float = 0.05
    balance_weight: float = 0.05
    ranking_weight: float = 1.0
    class_weight: float = 1.0
    geometry_weight: float = 0.0
    temperature: float = 1.0
    geometry_temperature: float = 0.1
    gallery_dropout: float = 0.0
    gallery_share: float = 1 / 3
    reduction_loss: str = "cross_entropy"
    hash_objective: str = "query_aware"
    decorrelation_weight: float = 0.1


RECIPES = {
    "default": Recipe(Head(dropout=0.5), Training()),
    "transfer": Recipe(
        Head(dropout=0.3),
        Training(),
        ranking_weight=0.0,
        class_weight=0.0,
        geometry_weight=1.0,
        gallery_dropout=0.3,
    ),
    "paper": Recipe(
        Head(hidden=(10,), batch_norm=False, dropout=0.0),
        Training(
            epochs=30,
            batch_size=1024,
            optimizer="adam",
            learning_rate=1e-3,
            schedule="constant",
            weight_decay=5e-4,
        ),
        map_dim=256,
        frequencies=10,
        band=100.0,
        skip=False,
        unit_length=True,
        fence_weight=0.1,
        ranking_weight=0.8,
        balance_weight=0.1,
        class_weight=0.0,
        gallery_share=0.0,
    ),
    "design": Recipe(
        Head(hidden=(1024, 512, 256, 128, 512), batch_norm=False, activation="relu", dropout=0.0),
        Training(
            epochs=10,
            batch_size=1024,
            optimizer="adam",
            learning_rate=1e-5,
            schedule="constant",
            weight_decay=0.0,
        ),
        map_dim=0,
        unit_length=False,
        fence_weight=0.01,
        balance_weight=0.01,
        ranking_weight=0.98,
        class_weight=0.0,
        gallery_share=0.0,
    ),
}
STAGED = ("paper", "design")
"""Recipes that are trained in two stages; the others are trained in one go."""

CLASS_MARGIN = 0.2
"""Taken from the cosine of a projection with its class's code."""

SETTINGS = [field.name for field in fields(Recipe) if field.name not in ("head", "training")]


def without_labels(bits: int) -> Recipe:
    """Return the default recipe where neighbours stand for labels: encoders that don't learn these by heart."""
    return replace(
        RECIPES["default"],
        head=Head(dropout=0.1),
        training=Training(epochs=10),
        balance_weight=losses.stronger_balance(bits),
        temperature=losses.softer_temperature(bits),
        gallery_dropout=0.1,
    )


class Fourier(BinaryHasher):
    """FourierHashNet; the arguments are the keys of ``conf/method/fourier.yaml``, None meaning what the
    recipe says.
    """

    def __init__(
        self,
        bits: int,
        seed: int = 0,
        device: str = "auto",
        recipe: str = "default",
        supervision: Supervision = "labels",
        neighbors: int = 100,
        map_dim: int | None = None,
        frequencies: int | None = None,
        threshold: float | None = None,
        band: float | None = None,
        scale: float | None = None,
        skip: bool | None = None,
        unit_length: bool | None = None,
        fence_weight: float | None = None,
        balance_weight: float | None = None,
        ranking_weight: float | None = None,
        class_weight: float | None = None,
        geometry_weight: float | None = None,
        temperature: float | None = None,
        geometry_temperature: float | None = None,
        gallery_dropout: float | None = None,
        gallery_share: float | None = None,
        reduction_loss: str | None = None,
        hash_objective: str | None = None,
        decorrelation_weight: float | None = None,
        head: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(bits, seed)
        if recipe not in RECIPES:
            raise wrong_value("method.recipe", recipe, "default, transfer, paper or design")
        if supervision not in ("labels", "none"):
            raise wrong_value("method.supervision", supervision, "labels or none")
        if supervision == "none" and recipe == "transfer":
            raise wrong_value("method.supervision", supervision, "labels with method.recipe=transfer")
        given = {name: value for name, value in locals().items() if name in SETTINGS and value is not None}
        chosen = without_labels(bits) if recipe == "default" and supervision == "none" else RECIPES[recipe]
        chosen = replace(chosen, **given)
        self.settings = replace(chosen, head=chosen.head.updated(head), training=chosen.training.updated(training))
        self.recipe, self.supervision, self.neighbors = recipe, supervision, neighbors
        self.device = resolve_device(device)
        self.network: FourierNetwork | None = None
        self._folded: dict[Side, FoldedNetwork] = {}
        self._check()
        for key, where in self._without_effect().items():
            if key in given:
                raise without_effect(key, given[key], where)

    def _without_effect(self) -> dict[str, str]:
        """Return the settings that nothing reads beside the others, and what takes their effect away."""
        settings, recipe = self.settings, f"method.recipe={self.recipe}"
        rules = (
            (not settings.ranking_weight and not settings.geometry_weight, "method.ranking_weight=0", ["temperature"]),
            (not settings.geometry_weight, "method.geometry_weight=0", ["geometry_temperature"]),
            (not settings.map_dim, "method.map_dim=0", ["frequencies", "threshold", "band", "scale"]),
            (
                self.supervision == "none",
                "method.supervision=none",
                ["class_weight", "geometry_weight", "geometry_temperature"],
            ),
            (
                self.recipe in STAGED,  # where the other weights leave balance what it has
                recipe,
                ["balance_weight", "class_weight", "geometry_weight", "temperature", "geometry_temperature"],
            ),
            (settings.hash_objective == "query_aware", "method.hash_objective=query_aware", ["decorrelation_weight"]),
            (settings.hash_objective == "query_agnostic", "method.hash_objective=query_agnostic", ["ranking_weight"]),
            (self.recipe != "paper", recipe, ["reduction_loss", "hash_objective", "decorrelation_weight"]),
            (self.recipe == "design", recipe, ["gallery_share"]),  # the gallery's network alone hashes
        )
        # Of several rules the last is the most telling.
        return {key: where for applies, where, keys in rules if applies for key in keys}

    def _check(self) -> None:
        for key, value, least in (
            ("neighbors", self.neighbors, 1),
            ("map_dim", self.settings.map_dim, 0),
            ("frequencies", self.settings.frequencies, 1),
        ):
            if value < least:
                raise wrong_value(f"method.{key}", value, f"at least {least}")
        for key in ("threshold", "band", "scale", "temperature", "geometry_temperature"):
            check_positive(key, getattr(self.settings, key))
        for key in SETTINGS:
            if key.endswith("_weight"):
                check_weight(key, getattr(self.settings, key))
        if self.settings.reduction_loss not in REDUCTION_LOSSES:
            raise wrong_value("method.reduction_loss", self.settings.reduction_loss, " or ".join(REDUCTION_LOSSES))
        if self.settings.hash_objective not in ("query_aware", "query_agnostic"):
            expected = "query_aware or query_agnostic"
            raise wrong_value("method.hash_objective", self.settings.hash_objective, expected)
        if self.recipe in STAGED:
            fence = self.settings.fence_weight
            key = "ranking_weight" if self.settings.hash_objective == "query_aware" else "decorrelation_weight"
            if fence + getattr(self.settings, key) > 1:
                expected = f"at most 1 - fence_weight = {1 - fence:g}: balance has the rest"
                raise wrong_value(f"method.{key}", getattr(self.settings, key), expected)
        if not 0 <= self.settings.gallery_share <= 1:
            raise wrong_value("method.gallery_share", self.settings.gallery_share, "from 0 to 1")
        if not 0 <= self.settings.gallery_dropout < 1:
            raise wrong_value("method.gallery_dropout", self.settings.gallery_dropout, "at least 0 and below 1")
        if not self.settings.head.hidden:
            raise wrong_value("method.head.hidden", [], "at least one width: the reduction of the map")
        check_batch_size(self.settings.training, self.settings.head)
        if not self.settings.map_dim and not self.settings.skip:
            raise wrong_value("method.skip", False, "true where method.map_dim=0, or the encoder sees nothing")

    def fit(self, train: Features, progress: Progress) -> Self:
        data = TrainingData(train, self.settings.training, self.seed, self.device, self.supervision)
        with seeded(self.seed, self.device):
            network = self._build(data.inputs).to(self.device)
            network.learn(train.x, self.seed)
            network.to(self.device)
            graph = neighbor_graph(data, self.neighbors, self.seed, progress) if self.supervision == "none" else None
            objective = Objective(self.settings, data, graph, self.bits, self.seed)
            objective.learn(network)
            objective.to(self.device)
        if self.recipe not in STAGED:
            model = nn.ModuleList([network, objective])
            result = train_model(
                model,
                lambda batch: objective(network, batch),
                network,
                data,
                self.settings.training,
                self.seed,
                progress,
                self.checkpoint,
            )
            self.history, self.chosen_epoch = result.history, result.chosen_epoch
        else:
            self.history, self.chosen_epoch = train_in_stages(
                network, data, graph, self.settings, self.recipe, self.seed, progress, self.checkpoint
            )
        self.network, self._folded = network, {}
        return self

    def _build(self, inputs: int) -> FourierNetwork:
        settings = self.settings
        map_dim = min(settings.map_dim, inputs)
        shape = Shape(
            inputs=inputs,
            bits=self.bits,
            map_dim=map_dim,
            frequencies=settings.frequencies,
            threshold=settings.threshold,
            band=settings.band,
            scale=settings.scale,
            skip=settings.skip,
            hidden=settings.head.hidden,
            batch_norm=settings.head.batch_norm,
            activation=settings.head.activation,
            dropout={"gallery": settings.gallery_dropout, "query": settings.head.dropout},
            unit_length=settings.unit_length,
            gallery_share=settings.gallery_share,
        )
        drawn = sample_frequencies(
            map_dim * settings.frequencies,
            settings.threshold,
            settings.band,
            np.random.default_rng([self.seed, 7]),
        )
        return FourierNetwork(shape, drawn.reshape(map_dim, settings.frequencies))

    def project(self, x: np.ndarray, side: Side) -> np.ndarray:
        assert self.network is not None, "fit or restore first"
        if self.recipe == "design":
            side = "gallery"  # whose network hashes both sides there
        if side not in self._folded:
            self._folded[side] = FoldedNetwork(self.network, side)
        return project_block(self._folded[side], x, self.device)

    def in_effect(self) -> dict[str, Any]:
        settings = asdict(self.settings) | {"training": self.settings.training.in_effect(self.device)}
        for key in self._without_effect():
            del settings[key]
        return settings

    def state(self) -> dict[str, np.ndarray]:
        assert self.network is not None, "fit or restore first"
        return arrays(self.network)

    def restore(self, state: dict[str, np.ndarray]) -> Self:
        self.network = self._build(len(state["standardise.mean"]))
        load_arrays(self.network, state, self.device)
        self._folded = {}
        return self


class Objective(nn.Module):
    """The terms of the recipes that are trained in one go.

    Args:
        settings: weights and temperatures.
        data: the training part.
        graph: neighbours, where they stand for labels.
        bits: the code's length.
        seed: decides the classes' codes.
    """

    class_codes: Tensor

    def __init__(self, settings: Recipe, data: TrainingData, graph: NeighborGraph | None, bits: int, seed: int) -> None:
        super().__init__()
        self.settings, self.data, self.graph = settings, data, graph
        # Products of unrelated codes spread as the square root of their length.
        self.temperature = settings.temperature / bits**0.5
        self.register_buffer("class_codes", class_codes("bernoulli", data.classes, bits, seed))
        with_geometry = settings.geometry_weight > 0 and graph is None
        self.discriminant = Discriminant(data.inputs, data.classes) if with_geometry else None

    def learn(self, network: FourierNetwork) -> None:
        """Take what the geometry term needs from the training part."""
        if self.discriminant is not None:
            self.discriminant.learn(self.data, network.standardise)

    def forward(self, network: FourierNetwork, batch: Batch) -> Terms:
        if self.graph is None:
            return self._supervised(network, batch)
        return self._unsupervised(network, batch, self.graph)

    def _supervised(self, network: FourierNetwork, batch: Batch) -> Terms:
        settings = self.settings
        prepared = network.prepare(batch.x)
        queries = network.hash(network.reduce(prepared, "query"))
        gallery = network.hash(network.reduce(prepared, "gallery"))
        terms = self._common(queries, gallery, same_labels(batch.y, batch.y), paired=False)
        if settings.class_weight:
            terms["class"] = settings.class_weight / 2 * (self._class(queries, batch.y) + self._class(gallery, batch.y))
        if self.discriminant is not None:
            terms["geometry"] = settings.geometry_weight * losses.geometry(
                torch.tanh(queries),
                torch.tanh(gallery),
                self.discriminant(prepared.features),
                self.temperature,
                settings.geometry_temperature,
            )
        return terms

    def _class(self, projections: Tensor, labels: Tensor) -> Tensor:
        targets = functional.normalize(memberships(labels, len(self.class_codes)), p=1)
        scale = self.class_codes.shape[1] ** 0.5
        return losses.class_softmax(projections, self.class_codes, targets, CLASS_MARGIN, scale)

    def _unsupervised(self, network: FourierNetwork, batch: Batch, graph: NeighborGraph) -> Terms:
        rows = graph.draw(batch.rows, batch.generator)
        partners, _ = self.data.take(rows)
        relevant = torch.from_numpy(graph.related(batch.rows, rows)).to(batch.x.device)
        relevant.fill_diagonal_(True)
        queries = network.hash(network.reduce(network.prepare(batch.x), "query"))
        gallery = network.hash(network.reduce(network.prepare(partners), "gallery"))
        return self._common(queries, gallery, relevant, paired=True)

    def _common(self, queries: Tensor, gallery: Tensor, relevant: Tensor, paired: bool) -> Terms:
        settings = self.settings
        query_codes, gallery_codes = torch.tanh(queries), torch.tanh(gallery)
        codes = torch.cat([query_codes, gallery_codes])
        terms = {
            "fence": settings.fence_weight * losses.mean_fence(codes),
            "balance": settings.balance_weight * losses.bit_balance(codes),
        }
        if settings.ranking_weight:
            ranking = losses.contrastive(query_codes, gallery_codes, relevant, self.temperature, paired)
            terms["ranking"] = settings.ranking_weight * ranking
        return terms
