"""Base class of the FourierHashNet methods: their network, and encoding by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from lshbench.errors import wrong_value
from lshbench.methods.fourier.folded import FoldedNetwork
from lshbench.methods.fourier.network import FourierNetwork, Shape
from lshbench.methods.trained import TrainedHasher, arrays, loaded, project_block
from lshbench.training.constraints import Weight
from lshbench.training.data import TrainingData
from lshbench.types import Features, Side

WIDEST = 1e5
"""Largest product of threshold and band of a map that is opened, which decides how long its density takes."""


@dataclass(kw_only=True, eq=False)
class FourierHasher(Shape, TrainedHasher):
    """Base class of the FourierHashNet methods.

    ``head`` gives the layers between map and hash layer; its dropout is that of the query's encoder.

    Attributes:
        fence_weight: of the distance of outputs from -1 and 1.
        ranking_weight: of relevant before irrelevant.
    """

    fence_weight: Weight
    ranking_weight: Weight

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.head.hidden:
            raise wrong_value("method.head.hidden", [], "at least one width: that of the encoders' output")
        if not self.map_dim and not self.skip:
            raise wrong_value("method.skip", False, "true where method.map_dim=0, or the encoders see nothing")
        self.network: FourierNetwork | None = None
        self._folded: dict[Side, FoldedNetwork] = {}

    def build(self, inputs: int) -> FourierNetwork:
        """Return the network for features of a width, its weights freshly drawn from torch's generator."""
        return FourierNetwork(inputs, self.bits, self, self.head, self.seed)

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
        folded = self._folded[side]
        return project_block(folded, x, self.device, folded.single)

    def keep(self, network: FourierNetwork) -> Self:
        """Encode by a fitted network from now on."""
        self.network, self._folded = network, {}
        return self

    def state(self) -> dict[str, np.ndarray]:
        assert self.network is not None, "fit or restore first"
        return arrays(self.network)

    def restore(self, state: dict[str, np.ndarray]) -> Self:
        inputs = len(state["standardise.mean"])
        drawn = min(self.map_dim, inputs), self.frequencies
        if self.map_dim and (state["fourier.frequencies"].shape != drawn or self.threshold * self.band > WIDEST):
            raise ValueError("the frequencies are not those of the map that model.json describes")
        return self.keep(loaded(lambda: self.build(inputs), state, self.device))
