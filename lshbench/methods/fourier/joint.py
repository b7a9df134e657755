"""FourierHashNet trained in one go: a narrow band of frequencies, the standardised features beside the map, wide
encoders, and a ranking term that is a softmax over the batch.

A query is encoded by both sides' encoders, unless they share one, and a mean of the two, mostly of its own, is hashed.

:class:`Fourier`
    With labels, terms draw codes to one code per class; those of similar classes are near.  The gallery's encoder
    has no dropout, so that it fits its items closely.  An item of several labels attracts items that share one, or
    that have all of them, and is drawn to its classes' codes in equal parts.
:class:`FourierTransfer`
    For classes that training has not seen: labels choose the directions that tell classes apart
    (:mod:`lshbench.methods.fourier.discriminant`), and codes are to rank a batch as cosines along these directions and
    cosines of all features do together: what these directions leave out tells other classes apart.  The ranking by
    labels counts little beside it, and no term has codes for classes.  An item of several labels counts once for
    each in the directions.
:class:`FourierUnsupervised`
    Without labels: the ranking is that of cosines averaged over neighbourhoods, by an encoder with dropout on both
    sides.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as logistic

from lshbench.errors import wrong_value
from lshbench.methods.fourier.base import FourierHasher
from lshbench.methods.fourier.discriminant import Discriminant
from lshbench.methods.fourier.losses import geometry, joined
from lshbench.methods.fourier.network import FourierNetwork
from lshbench.methods.trained import NeighborhoodHasher
from lshbench.training.class_codes import Targets, class_shares, target_codes
from lshbench.training.constraints import Positive, Share, Weight
from lshbench.training.data import Batch, TrainingData
from lshbench.training.loop import Terms, seeded, train_model
from lshbench.training.losses import bit_balance, class_softmax, contrastive, mean_fence
from lshbench.training.validation import LABEL_PAIRS
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

    teaching: ClassVar[tuple[str, ...]] = ("ranking_weight",)
    """Weights of the terms that say which codes are to be near: without any, training has nothing to learn."""

    balance_weight: Weight
    temperature: Positive

    def __post_init__(self) -> None:
        super().__post_init__()
        if not any(getattr(self, name) for name in self.teaching):
            first, *others = self.teaching
            instead = "".join(f", or one for method.{name}" for name in others)
            raise wrong_value(f"method.{first}", 0, f"a positive number{instead}: nothing else says what is to be near")

    @abstractmethod
    def objective(self, data: TrainingData, network: FourierNetwork, progress: Progress) -> Callable[[Batch], Terms]:
        """Return the loss of a batch."""

    def common_terms(self, queries: Tensor, gallery: Tensor, relevant: Tensor, paired: bool) -> Terms:
        """Return the terms of all variants: fence, balance and ranking.

        Args:
            queries, gallery: projections of a batch as queries and as gallery items, ``(n, bits)``.
            relevant: which pairs are, bool, or by how much, float, ``(n, n)``.
            paired: whether row i of the gallery is another item than query i.
        """
        query_codes, gallery_codes = torch.tanh(queries), torch.tanh(gallery)
        codes = torch.cat([query_codes, gallery_codes])
        terms = {
            "fence": self.fence_weight * mean_fence(codes),
            "balance": self.balance_weight * bit_balance(codes),
        }
        if self.ranking_weight:
            ranking = contrastive(query_codes, gallery_codes, relevant, self.product_temperature, paired)
            terms["ranking"] = self.ranking_weight * ranking
        return terms

    @property
    def product_temperature(self) -> float:
        """The temperature of products divided by bits."""
        # Products of unrelated codes spread as the square root of their length.
        return self.temperature / self.bits**0.5

    def fit(self, train: Features, progress: Progress) -> Self:
        with seeded(self.seed, self.device):
            data, network = self.prepare(train)
            objective = self.objective(data, network, progress)
        result = train_model(
            network, objective, network, data, self.training, self.seed, progress, checkpoint=self.checkpoint
        )
        self.history, self.chosen_epoch = result.history, result.chosen_epoch
        return self.keep(network)


@dataclass(kw_only=True, eq=False)
class Fourier(JointFourier):
    """The variant trained with labels: the keys of ``conf/method/fourier.yaml``.

    Of a batch, an item is relevant to another, the query, if they share a label, or under
    ``training.relevance=subset`` if it has all of the query's labels: the published method's containment, in which the
    two sides differ.  Of single labels both are the same.

    Attributes:
        class_weight: of codes nearer to their class's code than to others'.
        bit_weight: of each bit being that of the class's code, by a logistic loss; of several classes, as far as their
            codes agree in it.
        targets: kind of class codes, see :func:`lshbench.training.class_codes.class_codes`.
    """

    supervision = "labels"
    teaching: ClassVar[tuple[str, ...]] = ("ranking_weight", "class_weight", "bit_weight")

    class_weight: Weight
    targets: Targets
    # Runs of earlier versions lack this key.
    bit_weight: Weight = 0.0

    def objective(self, data: TrainingData, network: FourierNetwork, progress: Progress) -> Callable[[Batch], Terms]:
        codes = None
        if self.class_weight or self.bit_weight:
            codes = target_codes(self.targets, data, self.bits, self.seed)
        relevant = LABEL_PAIRS[self.training.relevance]
        further = self.geometry_term(data, network)

        def loss(batch: Batch) -> Terms:
            prepared = network.prepare(batch.x)
            queries = network.hash(network.encode(prepared, "query"))
            gallery = network.hash(network.encode(prepared, "gallery"))
            terms = self.common_terms(queries, gallery, relevant(batch.y, batch.y), paired=False)
            if codes is not None:
                shares = class_shares(batch.y, len(codes))
                if self.class_weight:
                    first, second = (
                        class_softmax(side, codes, shares, CLASS_MARGIN, self.bits**0.5) for side in (queries, gallery)
                    )
                    terms["class"] = self.class_weight / 2 * (first + second)
                if self.bit_weight:
                    # A bit counts as far as an item's classes agree in it.
                    votes = shares @ codes
                    first, second = (logistic(side, (votes > 0).float(), votes.abs()) for side in (queries, gallery))
                    terms["bits"] = self.bit_weight / 2 * (first + second)
            return terms | further(queries, gallery, prepared.features)

        return loss

    def geometry_term(self, data: TrainingData, network: FourierNetwork) -> Callable[[Tensor, Tensor, Tensor], Terms]:
        """Return a further term, if any, of both sides' projections and the standardised features."""
        return lambda queries, gallery, features: {}


@dataclass(kw_only=True, eq=False)
class FourierTransfer(Fourier):
    """The variant for classes that training has not seen: the keys of ``conf/method/fourier_transfer.yaml``.

    Attributes:
        geometry_weight: of ranking a batch by code as by cosines along the directions that tell classes apart.
        features_share: of the cosines of all features in the mean of both; those along the directions have the rest.
        geometry_temperature: of the mean.
    """

    teaching: ClassVar[tuple[str, ...]] = (*Fourier.teaching, "geometry_weight")

    geometry_weight: Weight
    features_share: Share
    geometry_temperature: Positive

    def geometry_term(self, data: TrainingData, network: FourierNetwork) -> Callable[[Tensor, Tensor, Tensor], Terms]:
        discriminant = Discriminant(data.inputs, data.classes)
        discriminant.learn(data, network.standardise)
        directions, share = discriminant.to(self.device), self.features_share

        def term(queries: Tensor, gallery: Tensor, features: Tensor) -> Terms:
            if not self.geometry_weight:
                return {}
            codes = torch.tanh(queries), torch.tanh(gallery)
            loss = geometry(
                *codes,
                joined(features, directions(features), share),
                self.product_temperature,
                self.geometry_temperature,
            )
            return {"geometry": self.geometry_weight * loss}

        return term


@dataclass(kw_only=True, eq=False)
class FourierUnsupervised(NeighborhoodHasher, JointFourier):
    """The variant trained without labels: the keys of ``conf/method/fourier_unsupervised.yaml``."""

    def objective(self, data: TrainingData, network: FourierNetwork, progress: Progress) -> Callable[[Batch], Terms]:
        nearby = self.neighborhoods(data, progress)

        def loss(batch: Batch) -> Terms:
            partners, relevance = nearby.partners(batch, data)
            queries = network.hash(network.encode(network.prepare(batch.x), "query"))
            gallery = network.hash(network.encode(network.prepare(partners), "gallery"))
            return self.common_terms(queries, gallery, relevance, paired=True)

        return loss
