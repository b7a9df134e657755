"""Image encoders, loaded: images are prepared and encoded in two steps, for different threads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from lshbench.errors import UsageError
from lshbench.features.precision import shorten
from lshbench.features.preprocess import Preprocess

CPU_BATCH_PIXELS, CPU_BATCHES = 200_000, (4, 16)
"""Pixels of a batch on a CPU, and the fewest and the most images.

With one network a thread, the activations of so many pixels stay in a core's cache: EfficientNet-Lite0 takes 11.5 ms
for an image of 128 px in batches of 16, 12.6 of 8 and 15.2 of 64, and for one of 224 px 31 ms in batches of 4, 39 of 8
and 43 of 64 (AMD Zen 3).
"""
GPU_BATCH = 128


class Encoder(ABC):
    """Interface of a loaded image encoder.

    Attributes:
        dim: numbers of a feature.
        shape: ``(height, width)`` of prepared images.
        batch_size: images that :meth:`encode` takes at a time.
        on_cpu: whether :meth:`encode` may run in several threads at once.
        preprocess: resizes and crops images.
    """

    dim: int
    shape: tuple[int, int]
    batch_size: int
    on_cpu: bool
    preprocess: Preprocess

    def batch(self) -> np.ndarray:
        """Return memory for a batch of prepared images, uint8 ``(batch_size, height, width, 3)``, of any content."""
        return np.empty((self.batch_size, *self.shape, 3), np.uint8)

    @abstractmethod
    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """Return the features, float32 ``(n, dim)``, of prepared images, uint8 ``(n, height, width, 3)``."""

    def begin(self, pixels: np.ndarray) -> Callable[[], np.ndarray]:
        """Begin to encode prepared images; return what waits for the features and returns them.

        A GPU computes meanwhile.  The images may not be changed before they are waited for.
        """
        features = self.encode(pixels)
        return lambda: features


class PixelEncoder(Encoder):
    """The image resized, as a vector of values from 0 to 1, row by row."""

    def __init__(self, size: int, batch_size: int) -> None:
        self.dim = size * size * 3
        self.shape = (size, size)
        self.batch_size = batch_size
        self.on_cpu = True
        self.preprocess = Preprocess(
            {"input_size": (3, size, size), "interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "squash"}
        )

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        return pixels.reshape(len(pixels), -1).astype(np.float32) / 255


class TimmEncoder(Encoder):
    """A timm network on a device, in a floating-point precision.

    Args:
        network: from normalised images to features, float32 on the CPU.
        data: timm's data configuration.
        device: where it runs.
        precision: ``float32``, ``bfloat16`` or ``float16``.
        batch_size: None takes what suits the device.
    """

    def __init__(
        self, network: nn.Module, data: dict[str, Any], device: torch.device, precision: str, batch_size: int | None
    ) -> None:
        self.device = device
        self.precision = precision
        self.on_cpu = device.type == "cpu"
        self.preprocess = Preprocess(data)
        self.shape = (self.preprocess.height, self.preprocess.width)
        self.batch_size = batch_size or (_cpu_batch(*self.shape) if self.on_cpu else GPU_BATCH)
        shorten(network, getattr(torch, precision))
        self.network = network.to(device).to(memory_format=torch.channels_last)
        self.dtype = next(network.parameters()).dtype
        mean, deviation = (torch.tensor(data[key], device=device).view(1, 3, 1, 1) for key in ("mean", "std"))
        self.scale, self.shift = 1 / (255 * deviation), -mean / deviation
        self.dim = self.encode(np.zeros((1, *self.shape, 3), np.uint8)).shape[1]

    def batch(self) -> np.ndarray:
        if self.device.type != "cuda":
            return super().batch()
        # Pinned: a GPU copies from it while the processor goes on.
        return torch.empty(self.batch_size, *self.shape, 3, dtype=torch.uint8, pin_memory=True).numpy()

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        return self.begin(pixels)()

    def begin(self, pixels: np.ndarray) -> Callable[[], np.ndarray]:
        with torch.inference_mode():
            images = torch.from_numpy(pixels).to(self.device, non_blocking=True)
            normalised = torch.addcmul(self.shift, images.permute(0, 3, 1, 2).float(), self.scale).to(self.dtype)
            features = self.network(normalised.contiguous(memory_format=torch.channels_last)).float()

        def finish() -> np.ndarray:
            found = features.cpu().numpy()
            if not np.isfinite(found).all():
                raise UsageError(
                    f"the network gives NaN or infinite features in {self.precision}; backbone.precision=float32 may "
                    "help"
                )
            return found

        return finish


def _cpu_batch(height: int, width: int) -> int:
    fewest, most = CPU_BATCHES
    return min(max(CPU_BATCH_PIXELS // (height * width), fewest), most)


@contextmanager
def single_threaded_operators() -> Iterator[None]:
    """Let torch's operators run in the thread that calls them.

    Extraction is parallel over batches, so a team of threads for each operator would only get in its way; where
    cores are shared with other processes, such teams spend most of their time waiting for each other.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
