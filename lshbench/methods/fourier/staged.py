"""FourierHashNet trained in two stages: first the encoders on pairs of items, then the hash layer on rankings.

:class:`FourierPaper`
    The published objective: T = 3, frequencies in +-100, ten of each component, linear encoders to ten dimensions
    trained by the cross-entropy of (cos + 1) / 2 on pairs; then the hash layer by ranking, fence and balance of one
    query against the gallery, the positives being those of least hinge distance.  The released code's other losses are
    ``reduction_loss`` (squared differences, or a ranking of pairs) and ``hash_objective=query_agnostic``: fence,
    decorrelation and balance of a batch of both sides' codes, which asks no code to be near another.
:class:`FourierDesign`
    The two stages without the map: hidden layers 1024, 512, 256 and 128, a hidden representation of 512.

Where labels decide, an item of several labels is relevant to every item that shares one, and one without a label to
none but itself; a relevant pair is drawn by one of the item's labels.  The paper's relevance is containment.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lshbench.errors import wrong_value
from lshbench.methods.fourier import losses
from lshbench.methods.fourier.base import FourierHasher
from lshbench.methods.fourier.hash_stage import DesignStage, HashStage, QueryAgnosticStage, QueryAwareStage
from lshbench.methods.fourier.network import FourierNetwork
from lshbench.methods.fourier.pairs import PairSampler
from lshbench.training.constraints import Count, LabelsOrNone, Weight, one_of
from lshbench.training.data import Batch, TrainingData
from lshbench.training.loop import Terms, TrainingResult, seeded, train_model
from lshbench.training.neighbors import neighbor_graph
from lshbench.types import Features, Progress, Side

PAIR_LOSSES = {
    "cross_entropy": losses.cosine_cross_entropy,
    "squares": losses.cosine_squares,
    "ranking": losses.pairwise_ranking,
}
"""Values of ``reduction_loss``: losses of cosines of pairs and whether these are relevant."""

DESIGN_QUERIES = 1000
"""Training items that stand as queries of pairs in :class:`FourierDesign`."""


@dataclass(kw_only=True, eq=False)
class StagedFourier(FourierHasher):
    """Base class of the methods with two stages.

    ``training`` is the encoders' budget; the hash layer has its schedule, one query at a time.

    Attributes:
        supervision: ``labels``: items of one class are relevant; ``none``: mutual nearest neighbours are.
        neighbors: nearest neighbours that are looked at without labels.
        hash_epochs: passes over ``hash_queries`` in the hash layer's training.
        hash_queries: training items that stand as queries there, at most.
    """

    supervision: LabelsOrNone = field()
    neighbors: Count
    hash_epochs: Count
    hash_queries: Count

    def check_share(self, key: str) -> None:
        """Raise the error for a weight that leaves balance less than nothing of 1."""
        if self.fence_weight + getattr(self, key) > 1:
            expected = f"at most 1 - fence_weight = {1 - self.fence_weight:g}: balance has the rest"
            raise wrong_value(f"method.{key}", getattr(self, key), expected)

    @abstractmethod
    def pair_loss(self, cosines: Tensor, relevant: Tensor) -> Tensor:
        """Return the encoders' loss of cosines of pairs, and whether these are relevant, float 0 or 1, ``(n,)``."""

    @abstractmethod
    def hash_stage(
        self, network: FourierNetwork, data: TrainingData, queries: np.ndarray, progress: Progress
    ) -> HashStage:
        """Return the hash layer's objective."""

    def pair_queries(self, count: int) -> np.ndarray:
        """Return which of ``count`` training items stand as queries of pairs."""
        return np.arange(count)

    def fit(self, train: Features, progress: Progress) -> Self:
        """Train the encoders on pairs, then the hash layer on rankings.

        Epochs of the second stage are numbered on from the first; their terms tell them apart.
        """
        with seeded(self.seed, self.device):
            data, network = self.prepare(train)
        first = self._train_encoders(network, data, progress)
        second = self._train_hash_layer(network, data, progress)
        shift = len(first.history)
        self.history = first.history + [replace(row, epoch=row.epoch + shift) for row in second.history]
        self.chosen_epoch = None if second.chosen_epoch is None else second.chosen_epoch + shift
        return self.keep(network)

    def _train_encoders(self, network: FourierNetwork, data: TrainingData, progress: Progress) -> TrainingResult:
        graph = neighbor_graph(data, self.neighbors, self.seed, progress) if self.supervision == "none" else None
        pairs, queries = PairSampler(data, graph), self.pair_queries(len(data))

        def loss(batch: Batch) -> Terms:
            first, second, relevant = pairs.draw(queries, len(batch.rows), batch.generator)
            left = network.encode(network.prepare(data.take(first)[0]), "query")
            right = network.encode(network.prepare(data.take(second)[0]), "gallery")
            cosines = torch.cosine_similarity(left, right)
            return {"reduction": self.pair_loss(cosines, torch.from_numpy(relevant.astype(np.float32)).to(data.device))}

        def encoded(x: Tensor, side: Side) -> Tensor:
            return functional.normalize(network.encode(network.prepare(x), side))

        return train_model(
            network.encoders,
            loss,
            encoded,
            data,
            self.training,
            self.seed,
            progress,
            self._checkpoint_of(1),
            "encoders",
            ranking="cosine",
        )

    def _train_hash_layer(self, network: FourierNetwork, data: TrainingData, progress: Progress) -> TrainingResult:
        generator = np.random.default_rng([self.seed, 9])
        queries = np.sort(generator.permutation(len(data))[: self.hash_queries])
        return train_model(
            network.hash,
            self.hash_stage(network, data, queries, progress).loss,
            lambda x, side: network(x, self.hashed_by(side)),
            data,
            replace(self.training, epochs=self.hash_epochs, batch_size=1, min_batches=1, max_batches=len(queries)),
            self.seed,
            progress,
            self._checkpoint_of(2),
            "hash layer",
        )

    def _checkpoint_of(self, stage: int) -> Path | None:
        file = self.checkpoint
        return None if file is None else file.with_name(f"{file.stem}-{stage}{file.suffix}")


@dataclass(kw_only=True, eq=False)
class FourierPaper(StagedFourier):
    """FourierHashNet as published: the keys of ``conf/method/fourier_paper.yaml``.

    Attributes:
        reduction_loss: of the encoders, a key of :data:`PAIR_LOSSES`.
        hash_objective: ``query_aware`` or ``query_agnostic``.
        decorrelation_weight: of uncorrelated bits in the query-agnostic objective, where ``ranking_weight`` has no
            effect; balance has the rest of 1.
    """

    reduction_loss: Annotated[str, one_of(*PAIR_LOSSES)]
    hash_objective: Annotated[str, one_of("query_aware", "query_agnostic")]
    decorrelation_weight: Weight

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_share("ranking_weight" if self.hash_objective == "query_aware" else "decorrelation_weight")

    def pair_loss(self, cosines: Tensor, relevant: Tensor) -> Tensor:
        return PAIR_LOSSES[self.reduction_loss](cosines, relevant)

    def hash_stage(
        self, network: FourierNetwork, data: TrainingData, queries: np.ndarray, progress: Progress
    ) -> HashStage:
        if self.hash_objective == "query_aware":
            return QueryAwareStage(self, network, data, queries, progress)
        return QueryAgnosticStage(self, network, data, queries, self.decorrelation_weight)


@dataclass(kw_only=True, eq=False)
class FourierDesign(StagedFourier):
    """The two stages without the map: the keys of ``conf/method/fourier_design.yaml``.

    The gallery's encoder alone hashes both sides.
    """

    map_dim: int = field(init=False, default=0)
    frequencies: int = field(init=False, default=1)
    threshold: float = field(init=False, default=3.0)
    band: float = field(init=False, default=1.0)
    scale: float = field(init=False, default=1.0)
    skip: bool = field(init=False, default=True)
    gallery_share: float = field(init=False, default=0.0)
    map_gain: float = field(init=False, default=1.0)
    encoders: str = field(init=False, default="separate")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_share("ranking_weight")

    def pair_queries(self, count: int) -> np.ndarray:
        return np.sort(np.random.default_rng([self.seed, 8]).permutation(count)[:DESIGN_QUERIES])

    def pair_loss(self, cosines: Tensor, relevant: Tensor) -> Tensor:
        return functional.binary_cross_entropy(cosines.clamp(1e-6, 1 - 1e-6), relevant)

    def hash_stage(
        self, network: FourierNetwork, data: TrainingData, queries: np.ndarray, progress: Progress
    ) -> HashStage:
        return DesignStage(self, network, data, queries, progress)

    def hashed_by(self, side: Side) -> Side:
        return "gallery"
