"""Base class of the FourierHashNet methods: their network, and encoding by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from lshbench.errors import wrong_value
from lshbench.methods.fourier.folded import FoldedNetwork
from lshbench.methods.fourier.map import sample_frequencies
from lshbench.methods.fourier.network import FourierNetwork, Shape
from lshbench.methods.trained import (
    TrainedHasher,
    arrays,
    check_at_least,
    check_positive,
    check_weight,
    load_arrays,
    project_block,
)
from lshbench.training.data import TrainingData
from lshbench.types import Features, Side


@dataclass(kw_only=True, eq=False)
class FourierHasher(TrainedHasher):
    """Base class of the FourierHashNet methods.

    ``head`` gives the layers between map and hash layer; its dropout is that of the query's encoder.

    Attributes:
        map_dim: leading principal components that are mapped; 0: no map, and nothing reads the next four.
        frequencies: of each component, m.
        threshold: T of the dominance similarity, in units of the scaled components.
        band: frequencies are drawn from [-band, band].
        scale: common deviation of the components as they enter the map.
        skip: whether the encoders see the standardised features beside the map.
        unit_length: whether the encoders' outputs are scaled to length 1 before the hash layer.
        gallery_dropout: dropout of the gallery's encoder.
        gallery_share: of the gallery's encoder in a query's hidden representation; the query's own has the rest.
        fence_weight: of the distance of outputs from -1 and 1.
        ranking_weight: of relevant before irrelevant.
    """

    map_dim: int
    frequencies: int
    threshold: float
    band: float
    scale: float
    skip: bool
    unit_length: bool
    gallery_dropout: float
    gallery_share: float
    fence_weight: float
    ranking_weight: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("map_dim", self.map_dim, 0)
        check_at_least("frequencies", self.frequencies, 1)
        for key in ("threshold", "band", "scale"):
            check_positive(key, getattr(self, key))
        for key in ("fence_weight", "ranking_weight"):
            check_weight(key, getattr(self, key))
        if not 0 <= self.gallery_share <= 1:
            raise wrong_value("method.gallery_share", self.gallery_share, "from 0 to 1")
        if not 0 <= self.gallery_dropout < 1:
            raise wrong_value("method.gallery_dropout", self.gallery_dropout, "at least 0 and below 1")
        if not self.head.hidden:
            raise wrong_value("method.head.hidden", [], "at least one width: that of the encoders' output")
        if not self.map_dim and not self.skip:
            raise wrong_value("method.skip", False, "true where method.map_dim=0, or the encoders see nothing")
        self.network: FourierNetwork | None = None
        self._folded: dict[Side, FoldedNetwork] = {}

    def build(self, inputs: int) -> FourierNetwork:
        """Return the network for features of a width, its weights freshly drawn from torch's generator."""
        map_dim = min(self.map_dim, inputs)
        shape = Shape(
            inputs=inputs,
            bits=self.bits,
            map_dim=map_dim,
            frequencies=self.frequencies,
            threshold=self.threshold,
            band=self.band,
            scale=self.scale,
            skip=self.skip,
            hidden=self.head.hidden,
            batch_norm=self.head.batch_norm,
            activation=self.head.activation,
            dropout={"gallery": self.gallery_dropout, "query": self.head.dropout},
            unit_length=self.unit_length,
            gallery_share=self.gallery_share,
        )
        generator = np.random.default_rng([self.seed, 7])
        drawn = sample_frequencies(map_dim * self.frequencies, self.threshold, self.band, generator)
        return FourierNetwork(shape, drawn.reshape(map_dim, self.frequencies))

    def prepare(self, train: Features) -> tuple[TrainingData, FourierNetwork]:
        """Return the training set on the device, and a network on it that has learnt statistics but no weights."""
        data = TrainingData(train, self.training, self.seed, self.device, self.supervision)
        network = self.build(data.inputs).to(self.device)
        network.learn(train.x, self.seed)
        return data, network.to(self.device)

    def hashed_by(self, side: Side) -> Side:
        """Return the side whose part of the network gives the codes of a side."""
        return side

    def project(self, x: np.ndarray, side: Side) -> np.ndarray:
        assert self.network is not None, "fit or restore first"
        side = self.hashed_by(side)
        if side not in self._folded:
            self._folded[side] = FoldedNetwork(self.network, side)
        return project_block(self._folded[side], x, self.device)

    def keep(self, network: FourierNetwork) -> Self:
        """Encode by a fitted network from now on."""
        self.network, self._folded = network, {}
        return self

    def state(self) -> dict[str, np.ndarray]:
        assert self.network is not None, "fit or restore first"
        return arrays(self.network)

    def restore(self, state: dict[str, np.ndarray]) -> Self:
        network = self.build(len(state["standardise.mean"]))
        load_arrays(network, state, self.device)
        return self.keep(network)
