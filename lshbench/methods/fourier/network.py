"""The network of FourierHashNet: an encoder on each side, or one of both, and a hash layer that the sides share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lshbench.methods.fourier.map import FourierMap, MapLayer, sample_frequencies
from lshbench.training.constraints import WHOLE, Count, Dropped, Positive, Share, at_least, one_of
from lshbench.training.heads import ACTIVATIONS, Components, Head, Standardise
from lshbench.training.layers import Dropout, HiddenLinear
from lshbench.types import Side

SIDES: tuple[Side, Side] = ("gallery", "query")


@dataclass(kw_only=True, eq=False)
class Shape:
    """Shape of a network, beside that of the head: keys of the FourierHashNet methods.

    Attributes:
        map_dim: leading principal components that are mapped; 0: no map, and nothing reads the next five.
        frequencies: drawn for each component, m.
        threshold: T of the dominance similarity, in units of the scaled components.
        band: frequencies are drawn from [-band, band].
        scale: standard deviation to which the components are scaled before the map.
        map_gain: what the map is multiplied by where the encoders take it.
        skip: whether the encoders also take the standardised features, beside the map.
        unit_length: whether the encoders' outputs are scaled to length 1 before the hash layer, as published.
        encoders: ``separate``: one for each side; ``shared``: the same weights for both, whose map, normalisation and
            dropout still differ.
        gallery_dropout: dropout of the gallery's encoder; the head's is that of the query's.
        gallery_share: of the gallery's encoder in a query's hidden representation; its own has the rest.  Without
            effect where both sides share one.
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
    # Runs of earlier versions lack these keys.
    map_gain: Positive = 1.0
    encoders: Annotated[str, one_of("separate", "shared")] = "separate"


class Encoder(nn.Module):
    """Encoder of one side or both: the map (and the features beside it) through layers of given widths.

    Sides that share it have a normalisation, and in training a dropout, of their own.

    Args:
        inputs: the features' width.
        mapped: the four-part map's width, or 0.
        shape: of the network.
        head: widths of the layers, batch normalisation, activation, and the query's dropout.
        sides: that it encodes.
    """

    def __init__(self, inputs: int, mapped: int, shape: Shape, head: Head, sides: Sequence[Side]) -> None:
        super().__init__()
        first, *others = head.hidden
        self.map_layer = MapLayer(mapped, first) if mapped else None
        self.skip = HiddenLinear(inputs, first) if shape.skip else None

        def apart(modules: list[nn.Module]) -> nn.Module:
            return modules[0] if len(sides) == 1 else nn.ModuleDict(dict(zip(sides, modules, strict=True)))

        dropped: dict[Side, float] = {"query": head.dropout, "gallery": shape.gallery_dropout}
        layers: list[nn.Module] = []
        for width, following in zip(head.hidden, [*others, None], strict=True):
            if head.batch_norm:
                layers.append(apart([nn.BatchNorm1d(width) for _ in sides]))
            if head.batch_norm or following is not None:
                layers.append(ACTIVATIONS[head.activation]())
            layers.append(apart([Dropout(dropped[side]) for side in sides]))
            if following is not None:
                layers.append(HiddenLinear(width, following))
        self.layers = nn.ModuleList(layers)

    def layers_of(self, side: Side) -> list[nn.Module]:
        """Return the layers behind the first product that a side goes through."""
        return [layer[side] if isinstance(layer, nn.ModuleDict) else layer for layer in self.layers]

    def forward(self, prepared: Prepared, side: Side) -> Tensor:
        parts = []
        if self.map_layer is not None and prepared.fourier is not None and prepared.waves is not None:
            parts.append(self.map_layer(prepared.fourier, prepared.waves, side))
        if self.skip is not None:
            parts.append(self.skip(prepared.features) if prepared.product is None else prepared.product)
        hidden = sum(parts[1:], start=parts[0])
        for layer in self.layers_of(side):
            hidden = layer(hidden)
        return hidden


@dataclass(frozen=True)
class Prepared:
    """Input of both sides' encoders, computed once for both.

    Attributes:
        features: standardised, ``(n, d)``.
        fourier: the map, or None.
        waves: cosines and sines of the components, each ``(n, map_dim * m)``, or None.
        product: of the features with the weights of an encoder that both sides share, which each asks for in training,
            ``(n, hidden[0])``, or None.
    """

    features: Tensor
    fourier: FourierMap | None
    waves: tuple[Tensor, Tensor] | None
    product: Tensor | None


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
            self.fourier = FourierMap(frequencies, shape.threshold, shape.band, shape.map_gain)
        self.shared = shape.encoders == "shared"
        served: dict[str, Sequence[Side]] = {"both": SIDES} if self.shared else {side: [side] for side in SIDES}
        self.encoders = nn.ModuleDict(
            {name: Encoder(inputs, 4 * dim * waves, shape, head, sides) for name, sides in served.items()}
        )
        self.hash = nn.Linear(head.hidden[-1], bits)

    def learn(self, x: np.ndarray, seed: int) -> None:
        """Take statistics and directions from training features ``(n, d)``."""
        self.standardise.learn(x)
        if self.components is not None:
            self.components.learn(self.standardise, x, seed)

    def prepare(self, x: Tensor) -> Prepared:
        """Return the encoders' input for features ``(n, d)``."""
        features = self.standardise(x)
        waves = product = None
        if self.components is not None and self.fourier is not None:
            waves = self.fourier.waves(self.components(features))
        if self.shared and (skip := self.encoder("query").skip) is not None:
            product = skip(features)
        return Prepared(features, self.fourier, waves, product)

    def mapped(self, x: Tensor) -> Tensor:
        """Return the map's input for features ``(n, d)``: the scaled components, or the features if there is no map."""
        features = self.standardise(x)
        return features if self.components is None else self.components(features)

    def encoder(self, side: Side) -> Encoder:
        """Return one side's encoder."""
        return cast(Encoder, self.encoders["both" if self.shared else side])

    @property
    def mixed(self) -> bool:
        """Whether a query's hidden representation is a mean of both sides' encoders."""
        return not self.shared and self.gallery_share > 0

    def encode(self, prepared: Prepared, side: Side) -> Tensor:
        """Return the hidden representation by one side's encoder, ``(n, hidden[-1])``."""
        hidden = self.encoder(side)(prepared, side)
        return functional.normalize(hidden) if self.unit_length else hidden

    def forward(self, x: Tensor, side: Side) -> Tensor:
        """Return projections, ``(n, bits)``."""
        prepared = self.prepare(x)
        hidden = self.encode(prepared, side)
        if side == "query" and self.mixed:
            # Two encoders trained apart err apart: their mean is the output of an ensemble.
            hidden = torch.lerp(hidden, self.encode(prepared, "gallery"), self.gallery_share)
        return self.hash(hidden)
