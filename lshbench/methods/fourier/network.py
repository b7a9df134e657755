"""The network of FourierHashNet: an encoder on each side, and a hash layer that the sides share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lshbench.methods.fourier.map import FourierMap, MapLayer
from lshbench.training.heads import ACTIVATIONS, Components, Standardise
from lshbench.training.layers import Dropout, HiddenLinear
from lshbench.types import Side

SIDES: tuple[Side, Side] = ("gallery", "query")


@dataclass(frozen=True)
class Shape:
    """Shape of a network.

    Attributes:
        inputs: the features' width.
        bits: the code's length.
        map_dim: leading principal components that the map takes; 0 for no map.
        frequencies: of each component, m.
        threshold: T of the dominance similarity, in units of the scaled components.
        band: frequencies lie in [-band, band].
        scale: the components' common deviation when they enter the map.
        skip: whether the first layer sees the standardised features beside the map.
        hidden: widths of the encoders' layers; the last is that of the hidden representation that is hashed.
        batch_norm: of these layers.
        activation: of them, a key of :data:`lshbench.training.heads.ACTIVATIONS`.
        dropout: of them, on each side.
        unit_length: whether hidden representations are scaled to length 1, as published.
        gallery_share: of the gallery's encoder in a query's hidden representation; the query's own has the rest.
    """

    inputs: int
    bits: int
    map_dim: int
    frequencies: int
    threshold: float
    band: float
    scale: float
    skip: bool
    hidden: tuple[int, ...]
    batch_norm: bool
    activation: str
    dropout: dict[Side, float]
    unit_length: bool
    gallery_share: float


class Encoder(nn.Module):
    """Encoder of one side: the map (and the features beside it) through layers of given widths.

    Args:
        shape: of the network.
        side: whose map it takes.
    """

    def __init__(self, shape: Shape, side: Side) -> None:
        super().__init__()
        first, *others = shape.hidden
        width = 4 * shape.map_dim * shape.frequencies
        self.map_layer = MapLayer(width, first, side) if shape.map_dim else None
        self.skip = HiddenLinear(shape.inputs, first) if shape.skip else None
        layers: list[nn.Module] = []
        for width, following in zip(shape.hidden, [*others, None], strict=True):
            if shape.batch_norm:
                layers.append(nn.BatchNorm1d(width))
            if shape.batch_norm or following is not None:
                layers.append(ACTIVATIONS[shape.activation]())
            layers.append(Dropout(shape.dropout[side]))
            if following is not None:
                layers.append(HiddenLinear(width, following))
        self.layers = nn.Sequential(*layers)

    def forward(self, prepared: Prepared) -> Tensor:
        parts = []
        if self.map_layer is not None and prepared.fourier is not None:
            parts.append(self.map_layer(prepared.fourier, prepared.waves))
        if self.skip is not None:
            parts.append(self.skip(prepared.features))
        return self.layers(sum(parts[1:], start=parts[0]))


@dataclass(frozen=True)
class Prepared:
    """Input of both sides' encoders, computed once for both.

    Attributes:
        features: standardised, ``(n, d)``.
        fourier: the map, or None.
        waves: cosines and sines of the components, each ``(n, map_dim * m)``, or None.
    """

    features: Tensor
    fourier: FourierMap | None
    waves: tuple[Tensor, Tensor] | None


class FourierNetwork(nn.Module):
    """Network from features to projections, for each side: standardise, rotate, map, encode, hash.

    Args:
        shape: what decides the layers.
        frequencies: float ``(map_dim, m)``, those of the map.
    """

    def __init__(self, shape: Shape, frequencies: np.ndarray) -> None:
        super().__init__()
        self.shape = shape
        self.standardise = Standardise(shape.inputs)
        self.components: Components | None = None
        self.fourier: FourierMap | None = None
        if shape.map_dim:
            self.components = Components(shape.inputs, shape.map_dim, shape.scale)
            self.fourier = FourierMap(frequencies, shape.threshold, shape.band)
        self.encoders = nn.ModuleDict({side: Encoder(shape, side) for side in SIDES})
        self.hash = nn.Linear(shape.hidden[-1], shape.bits)

    def learn(self, x: np.ndarray, seed: int) -> None:
        """Take statistics and directions from training features ``(n, d)``."""
        self.standardise.learn(x)
        if self.components is not None:
            self.components.learn(self.standardise, x, seed)

    def prepare(self, x: Tensor) -> Prepared:
        """Return the encoders' input for features ``(n, d)``."""
        features = self.standardise(x)
        if self.components is None or self.fourier is None:
            return Prepared(features, None, None)
        return Prepared(features, self.fourier, self.fourier.waves(self.components(features)))

    def mapped(self, x: Tensor) -> Tensor:
        """Return the map's input for features ``(n, d)``: the scaled components, or the features if there is no map."""
        features = self.standardise(x)
        return features if self.components is None else self.components(features)

    def encode(self, prepared: Prepared, side: Side) -> Tensor:
        """Return the hidden representation by one side's encoder, ``(n, hidden[-1])``."""
        hidden = self.encoders[side](prepared)
        return functional.normalize(hidden) if self.shape.unit_length else hidden

    def forward(self, x: Tensor, side: Side) -> Tensor:
        """Return projections, ``(n, bits)``."""
        prepared = self.prepare(x)
        hidden = self.encode(prepared, side)
        if side == "query" and self.shape.gallery_share:
            # Two encoders trained apart err apart: their mean is the output of an ensemble.
            hidden = torch.lerp(hidden, self.encode(prepared, "gallery"), self.shape.gallery_share)
        return self.hash(hidden)
