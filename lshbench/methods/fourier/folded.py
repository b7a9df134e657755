"""A fitted FourierHashNet prepared for encoding: what depends on weights alone is computed once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lshbench.methods.fourier.network import Encoder, FourierNetwork
from lshbench.training.single import Step, for_one_item, numbers_of, scale_and_offset, standardising
from lshbench.types import Side

LEAST_LENGTH = np.float32(1e-12)
"""What outputs are divided by at least when they are scaled to length 1."""


class FoldedNetwork:
    """A :class:`lshbench.methods.fourier.network.FourierNetwork` for one side, in evaluation mode.

    All encoders that the side takes share two products: that of the features, which has the principal components in
    it, and that of the waves.  The map's weights are collapsed and the first batch normalisation is folded into the
    layer before it.  An item alone takes a third of the time, and by NumPy (``single``) half of that.

    Args:
        network: fitted; its weights must not change afterwards.
        side: whose projections are asked for.
    """

    @torch.inference_mode()
    def __init__(self, network: FourierNetwork, side: Side) -> None:
        network.eval()
        self.network = network
        sides: list[Side] = [side]
        if side == "query" and network.mixed:
            sides.append("gallery")
        encoders = [network.encoder(name) for name in sides]
        layers = [encoder.layers_of(name) for name, encoder in zip(sides, encoders, strict=True)]
        folded = [_scale_and_offset(encoder, after[0]) for encoder, after in zip(encoders, layers, strict=True)]
        scales = torch.cat([scale for scale, _ in folded])[:, None]
        self.offset = torch.cat([offset for _, offset in folded])
        self.layers = [_after_first(after) for after in layers]
        skips: list[Tensor] = [encoder.skip.weight for encoder in encoders if encoder.skip is not None]
        self.width = sum(len(skip) for skip in skips)
        first = [torch.cat(skips) * scales] if skips else []
        self.waves: Tensor | None = None
        if network.components is not None and network.fourier is not None:
            first.append(network.components.directions.T)
            collapsed = [
                torch.cat(network.fourier.collapse(encoder.map_layer.weight, name), dim=1)
                for name, encoder in zip(sides, encoders, strict=True)
                if encoder.map_layer is not None
            ]
            self.waves = torch.cat(collapsed) * scales
        self.first = torch.cat(first)
        self.single = self._for_one_item()

    def __call__(self, x: Tensor) -> Tensor:
        """Return projections ``(n, bits)`` of features ``(n, d)``."""
        network = self.network
        product = functional.linear(network.standardise(x), self.first)
        hidden = self.offset + product[:, : self.width] if self.width else self.offset
        if self.waves is not None and network.fourier is not None:
            waves = torch.cat(network.fourier.waves(product[:, self.width :]), dim=1)
            hidden = hidden + functional.linear(waves, self.waves)
        parts = hidden.chunk(len(self.layers), dim=1)
        encoded = [layers(part) for layers, part in zip(self.layers, parts, strict=True)]
        if network.unit_length:
            encoded = [functional.normalize(part) for part in encoded]
        if len(encoded) > 1:
            encoded[0] = torch.lerp(encoded[0], encoded[1], network.gallery_share)
        return network.hash(encoded[0])

    def _for_one_item(self) -> Step | None:
        """Return what :meth:`__call__` does, for one item by NumPy; None where the weights are not on a CPU."""
        network, fourier = self.network, self.network.fourier
        if self.first.device.type != "cpu":
            return None
        following = [for_one_item(layers) for layers in self.layers]
        hash_layer = for_one_item([network.hash])
        standardise, first, offset = standardising(network.standardise), numbers_of(self.first), numbers_of(self.offset)
        waves = None if self.waves is None else numbers_of(self.waves)
        frequencies = None if fourier is None else numbers_of(fourier.frequencies)
        share = np.float32(network.gallery_share)

        def project(x: np.ndarray) -> np.ndarray:
            product = first @ standardise(x)
            hidden = offset + product[: self.width] if self.width else offset
            if waves is not None and frequencies is not None:
                angles = (product[self.width :, None] * frequencies).ravel()
                hidden = hidden + waves @ np.concatenate((np.cos(angles), np.sin(angles)))
            parts = hidden.reshape(len(following), -1)
            encoded = [layers(part) for layers, part in zip(following, parts, strict=True)]
            if network.unit_length:
                encoded = [part / max(np.sqrt(part @ part), LEAST_LENGTH) for part in encoded]
            if len(encoded) > 1:
                encoded[0] = encoded[0] + share * (encoded[1] - encoded[0])
            return hash_layer(encoded[0])

        return project


def _scale_and_offset(encoder: Encoder, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return what the first products of an encoder are multiplied by, and what is added then, each ``(h,)``."""
    biases: list[Tensor] = [layer.bias for layer in (encoder.map_layer, encoder.skip) if layer is not None]
    bias = torch.stack(biases).sum(0)
    return scale_and_offset(norm, bias) if isinstance(norm, nn.BatchNorm1d) else (torch.ones_like(bias), bias)


def _after_first(layers: list[nn.Module]) -> nn.Sequential:
    """Return what follows the part of an encoder that is folded, without what does nothing in evaluation."""
    following = layers[1:] if isinstance(layers[0], nn.BatchNorm1d) else layers
    return nn.Sequential(*(layer for layer in following if not isinstance(layer, nn.Dropout)))
