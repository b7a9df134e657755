"""The network of FourierHashNet: an encoder on each side, and a hash layer that the sides share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lshbench.methods.fourier.map import FourierMap, MapLayer, sample_frequencies
from lshbench.training.constraints import WHOLE, Count, Dropped, Positive, Share, at_least
from lshbench.training.heads import ACTIVATIONS, Components, Head, Standardise
from lshbench.training.layers import Dropout, HiddenLinear
from lshbench.types import Side

SIDES: tuple[Side, Side] = ("gallery", "query")


@dataclass(kw_only=True, eq=False)
class Shape:
    """Shape of a network, beside that of the head: keys of the FourierHashNet methods.

    Attributes:
        map_dim: leading principal components that are mapped; 0: no map, and nothing reads the next four.
        frequencies: drawn for each component, m.
        threshold: T of the dominance similarity, in units of the scaled components.
        band: frequencies are drawn from [-band, band].
        scale: standard deviation to which the components are scaled before the map.
        skip: whether the encoders also take the standardised features, beside the map.
        unit_length: whether the encoders' outputs are scaled to length 1 before the hash layer, as published.
        gallery_dropout: dropout of the gallery's encoder; the head's is that of the query's.
        gallery_share: of the gallery's encoder in a query's hidden representation; its own has the rest.
    """

    map_dim: Annotated[int, WHOLE, at_least(0, "at least 0")]
    frequencies: Count
    threshold: Positive
    band: Positive
    scale: Positive
    skip: bool
    unit_length: bool
    gallery_dropout: Dropped
    gallery_share: Share


class Encoder(nn.Module):
    """Encoder of one side: the map (and the features beside it) through layers of given widths.

    Args:
        inputs: the features' width.
        mapped: the four-part map's width, or 0.
        shape: of the network.
        head: widths of the layers, batch normalisation, activation, and the query's dropout.
        side: whose map it takes.
    """

    def __init__(self, inputs: int, mapped: int, shape: Shape, head: Head, side: Side) -> None:
        super().__init__()
        first, *others = head.hidden
        self.map_layer = MapLayer(mapped, first, side) if mapped else None
        self.skip = HiddenLinear(inputs, first) if shape.skip else None
        layers: list[nn.Module] = []
        for width, following in zip(head.hidden, [*others, None], strict=True):
            if head.batch_norm:
                layers.append(nn.BatchNorm1d(width))
            if head.batch_norm or following is not None:
                layers.append(ACTIVATIONS[head.activation]())
            layers.append(Dropout(head.dropout if side == "query" else shape.gallery_dropout))
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
        inputs: the features' width.
        bits: the code's length.
        shape: what decides map and sides.
        head: the encoders' layers; the width of the last is that of the hidden representation that is hashed.
        seed: decides the frequencies; weights are drawn from torch's generator.
    """

    def __init__(self, inputs: int, bits: int, shape: Shape, head: Head, seed: int) -> None:
        super().__init__()
        self.unit_length, self.gallery_share = shape.unit_length, shape.gallery_share
        self.standardise = Standardise(inputs)
        self.components: Components | None = None
        self.fourier: FourierMap | None = None
        dim, waves = min(shape.map_dim, inputs), shape.frequencies
        if dim:
            generator = np.random.default_rng([seed, 7])
            frequencies = sample_frequencies(dim * waves, shape.threshold, shape.band, generator).reshape(dim, waves)
            self.components = Components(inputs, dim, shape.scale)
            self.fourier = FourierMap(frequencies, shape.threshold, shape.band)
        self.encoders = nn.ModuleDict({side: Encoder(inputs, 4 * dim * waves, shape, head, side) for side in SIDES})
        self.hash = nn.Linear(head.hidden[-1], bits)

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
        return functional.normalize(hidden) if self.unit_length else hidden

    def forward(self, x: Tensor, side: Side) -> Tensor:
        """Return projections, ``(n, bits)``."""
        prepared = self.prepare(x)
        hidden = self.encode(prepared, side)
        if side == "query" and self.gallery_share:
            # Two encoders trained apart err apart: their mean is the output of an ensemble.
            hidden = torch.lerp(hidden, self.encode(prepared, "gallery"), self.gallery_share)
        return self.hash(hidden)
