"""The evaluation transform of a model, from RGB images to the pixels that its network takes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from PIL import Image

NATIVE = ("bicubic", "bilinear")


class Preprocess:
    """Resize and crop as timm's evaluation transform does, without normalisation.

    The common case, a square input with bicubic or bilinear resizing, runs in torch's uint8 kernel: Pillow's
    antialiased filter but for the rounding between rows and columns, and several times faster.  All else runs through
    timm's transform.

    Args:
        data: timm's data configuration.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        _, self.height, self.width = data["input_size"]
        self.interpolation = data["interpolation"]
        self.squash = data["crop_mode"] == "squash"
        self.side = math.floor(self.height / data["crop_pct"])
        self.transform = None
        if (
            self.height != self.width
            or self.interpolation not in NATIVE
            or data["crop_mode"] not in ("center", "squash")
        ):
            from timm.data import create_transform

            self.transform = create_transform(
                **{key: data[key] for key in ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")},
                use_prefetcher=True,
            )

    def __call__(self, image: Image.Image, pixels: np.ndarray) -> np.ndarray:
        """Return an image's input pixels, uint8 ``(height, width, 3)``.

        Args:
            image: RGB.
            pixels: its pixels, uint8 ``(h, w, 3)``, writable.
        """
        if self.transform is not None:
            pixels = np.asarray(self.transform(image))
            return np.ascontiguousarray(pixels.transpose(1, 2, 0))
        return self._resized(pixels)

    def _resized(self, pixels: np.ndarray) -> np.ndarray:
        """Resize and crop uint8 ``(h, w, 3)`` to uint8 ``(height, width, 3)``."""
        height, width = pixels.shape[:2]
        if self.squash:
            new_height = new_width = self.side
        elif width <= height:
            new_height, new_width = int(self.side * height / width), self.side
        else:
            new_height, new_width = self.side, int(self.side * width / height)
        # Views throughout: (h, w, 3) is what torch calls channels-last.
        images = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        if (new_height, new_width) != (height, width):
            images = functional.interpolate(
                images, size=(new_height, new_width), mode=self.interpolation, antialias=True, align_corners=False
            )
        top, left = round((new_height - self.height) / 2), round((new_width - self.width) / 2)
        cropped = images[0, :, top : top + self.height, left : left + self.width]
        return cropped.permute(1, 2, 0).numpy()
