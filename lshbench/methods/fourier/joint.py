"""FourierHashNet trained in one go: a narrow band of frequencies, the standardised features beside the map, wide
encoders, and a ranking term that is a softmax over the batch.

A query is encoded by both sides' encoders, and a mean of the two, mostly of its own, is hashed.

:class:`Fourier`
    With labels, a term draws codes to one code per class.  The gallery's encoder has no dropout, so that it fits its
    items closely.
:class:`FourierTransfer`
    For classes that training has not seen: labels choose the directions that tell classes apart
    (:mod:`lshbench.methods.fourier.discriminant`), and codes are to rank a batch as cosines along these directions
    do.  No term names a class.
:class:`FourierUnsupervised`
    Without labels: neighbours stand for them, and encoders that don't learn these by heart.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from lshbench.methods.base import check_bits
from lshbench.methods.fourier.base import FourierHasher
from lshbench.methods.fourier.discriminant import Discriminant
from lshbench.methods.fourier.losses import geometry
from lshbench.methods.fourier.network import FourierNetwork
from lshbench.methods.trained import check_at_least, check_positive, check_weight
from lshbench.training import auto
from lshbench.training.class_codes import class_codes, memberships
from lshbench.training.data import Batch, TrainingData
from lshbench.training.loop import Terms, seeded, train_model
from lshbench.training.losses import bit_balance, class_softmax, contrastive, mean_fence
from lshbench.training.neighbors import NeighborGraph, neighbor_graph
from lshbench.training.validation import same_labels
from lshbench.types import Features, Progress

CLASS_MARGIN = 0.2
"""Taken from the cosine of a projection with its class's code."""


@dataclass(kw_only=True, eq=False)
class JointFourier(FourierHasher):
    """Base class of the variants that are trained in one go.

    Attributes:
        balance_weight: of bit balance over items.
        temperature: of the softmax over products divided by the square root of bits.
    """

    balance_weight: float
    temperature: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weight("balance_weight", self.balance_weight)
        check_positive("temperature", self.temperature)

    @abstractmethod
    def objective(self, data: TrainingData, network: FourierNetwork, progress: Progress) -> nn.Module:
        """Return the loss, which is called with the network and a batch."""

    def fit(self, train: Features, progress: Progress) -> Self:
        with seeded(self.seed, self.device):
            data, network = self.prepare(train)
            objective = self.objective(data, network, progress).to(self.device)
        result = train_model(
            nn.ModuleList([network, objective]),
            lambda batch: objective(network, batch),
            network,
            data,
            self.training,
            self.seed,
            progress,
            self.checkpoint,
        )
        self.history, self.chosen_epoch = result.history, result.chosen_epoch
        return self.keep(network)


@dataclass(kw_only=True, eq=False)
class Fourier(JointFourier):
    """The variant trained with labels: the keys of ``conf/method/fourier.yaml``.

    Attributes:
        class_weight: of codes near their class's code.
    """

    supervision = "labels"

    class_weight: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weight("class_weight", self.class_weight)

    def objective(self, data: TrainingData, network: FourierNetwork, progress: Progress) -> nn.Module:
        return LabelObjective(self, data)


@dataclass(kw_only=True, eq=False)
class FourierTransfer(Fourier):
    """The variant for classes that training has not seen: the keys of ``conf/method/fourier_transfer.yaml``.

    Attributes:
        geometry_weight: of ranking a batch by code as by cosines along the directions that tell classes apart.
        geometry_temperature: of these cosines.
    """

    geometry_weight: float
    geometry_temperature: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weight("geometry_weight", self.geometry_weight)
        check_positive("geometry_temperature", self.geometry_temperature)

    def objective(self, data: TrainingData, network: FourierNetwork, progress: Progress) -> nn.Module:
        discriminant = Discriminant(data.inputs, data.classes)
        discriminant.learn(data, network.standardise)
        return GeometryObjective(self, data, discriminant)


@dataclass(kw_only=True, eq=False)
class FourierUnsupervised(JointFourier):
    """The variant trained without labels: the keys of ``conf/method/fourier_unsupervised.yaml``.

    ``balance_weight`` and ``temperature`` may be ``auto``: see :mod:`lshbench.training.auto`.

    Attributes:
        neighbors: nearest neighbours that are looked at; mutual ones stand for items of the same class.
    """

    supervision = "none"

    neighbors: int

    def __post_init__(self) -> None:
        check_bits(self.bits)
        self.balance_weight = auto.resolve("balance_weight", self.balance_weight, auto.balance_ratio(self.bits))
        self.temperature = auto.resolve("temperature", self.temperature, auto.temperature(self.bits))
        super().__post_init__()
        check_at_least("neighbors", self.neighbors, 1)

    def objective(self, data: TrainingData, network: FourierNetwork, progress: Progress) -> nn.Module:
        return NeighborObjective(self, data, neighbor_graph(data, self.neighbors, self.seed, progress))


class JointObjective(nn.Module):
    """Terms of all variants: fence, balance and ranking."""

    def __init__(self, method: JointFourier) -> None:
        super().__init__()
        self.fence_weight, self.balance_weight = method.fence_weight, method.balance_weight
        self.ranking_weight = method.ranking_weight
        # Products of unrelated codes spread as the square root of their length.
        self.temperature = method.temperature / method.bits**0.5

    def common(self, queries: Tensor, gallery: Tensor, relevant: Tensor, paired: bool) -> Terms:
        """Return the terms for both sides' projections ``(n, bits)``, and which pairs are relevant, bool ``(n, n)``.

        Args:
            queries, gallery: projections of a batch as queries and as gallery items.
            relevant: which pairs are.
            paired: whether row i of the gallery is another item than query i.
        """
        query_codes, gallery_codes = torch.tanh(queries), torch.tanh(gallery)
        codes = torch.cat([query_codes, gallery_codes])
        terms = {
            "fence": self.fence_weight * mean_fence(codes),
            "balance": self.balance_weight * bit_balance(codes),
        }
        if self.ranking_weight:
            ranking = contrastive(query_codes, gallery_codes, relevant, self.temperature, paired)
            terms["ranking"] = self.ranking_weight * ranking
        return terms


class LabelObjective(JointObjective):
    """Terms of the variants with labels: the common ones, and codes near their class's code."""

    class_codes: Tensor

    def __init__(self, method: Fourier, data: TrainingData) -> None:
        super().__init__(method)
        self.class_weight = method.class_weight
        self.register_buffer("class_codes", class_codes("bernoulli", data.classes, method.bits, method.seed))

    def forward(self, network: FourierNetwork, batch: Batch) -> Terms:
        prepared = network.prepare(batch.x)
        queries = network.hash(network.encode(prepared, "query"))
        gallery = network.hash(network.encode(prepared, "gallery"))
        terms = self.common(queries, gallery, same_labels(batch.y, batch.y), paired=False)
        if self.class_weight:
            terms["class"] = self.class_weight / 2 * (self._class(queries, batch.y) + self._class(gallery, batch.y))
        return terms | self.geometry(queries, gallery, prepared.features)

    def geometry(self, queries: Tensor, gallery: Tensor, features: Tensor) -> Terms:
        """Return the geometry term where a method has one, given both sides' projections and standardised features."""
        return {}

    def _class(self, projections: Tensor, labels: Tensor) -> Tensor:
        targets = functional.normalize(memberships(labels, len(self.class_codes)), p=1)
        scale = self.class_codes.shape[1] ** 0.5
        return class_softmax(projections, self.class_codes, targets, CLASS_MARGIN, scale)


class GeometryObjective(LabelObjective):
    """Terms of :class:`FourierTransfer`: those with labels, and the geometry of directions that tell classes apart."""

    def __init__(self, method: FourierTransfer, data: TrainingData, discriminant: Discriminant) -> None:
        super().__init__(method, data)
        self.geometry_weight, self.geometry_temperature = method.geometry_weight, method.geometry_temperature
        self.discriminant = discriminant

    def geometry(self, queries: Tensor, gallery: Tensor, features: Tensor) -> Terms:
        if not self.geometry_weight:
            return {}
        wanted = self.discriminant(features)
        term = geometry(torch.tanh(queries), torch.tanh(gallery), wanted, self.temperature, self.geometry_temperature)
        return {"geometry": self.geometry_weight * term}


class NeighborObjective(JointObjective):
    """Terms of :class:`FourierUnsupervised`: each item against neighbours of the batch's items."""

    def __init__(self, method: FourierUnsupervised, data: TrainingData, graph: NeighborGraph) -> None:
        super().__init__(method)
        self.data, self.graph = data, graph

    def forward(self, network: FourierNetwork, batch: Batch) -> Terms:
        rows = self.graph.draw(batch.rows, batch.generator)
        partners, _ = self.data.take(rows)
        relevant = torch.from_numpy(self.graph.related(batch.rows, rows)).to(batch.x.device)
        relevant.fill_diagonal_(True)
        queries = network.hash(network.encode(network.prepare(batch.x), "query"))
        gallery = network.hash(network.encode(network.prepare(partners), "gallery"))
        return self.common(queries, gallery, relevant, paired=True)
