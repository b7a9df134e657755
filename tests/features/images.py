"""Small pictures as a data set, for tests of extraction."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image

from lshbench.data.base import Split


@contextmanager
def no_progress(description: str, *, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    yield lambda count: None


def jpeg(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=95)
    return file.getvalue()


def pictures(count: int, size: int = 32, seed: int = 0) -> list[np.ndarray]:
    """Return smooth coloured pictures, uint8 ``(size, size, 3)``."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), np.uint8)
    return [np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)) for image in coarse]


class MemorySplit(Split):
    """Images in memory, encoded or not."""

    kind = "images"

    def __init__(self, images: list[bytes | np.ndarray], name: str = "train") -> None:
        self.name = name
        self.images = images
        self.labels = np.zeros(len(images), np.int64)
        self.reads = 0

    def fingerprint(self, rows: np.ndarray | None = None) -> str:
        digest = hashlib.sha256()
        for image in self.images:
            digest.update(bytes(image) if isinstance(image, bytes) else image.tobytes())
        return f"sha256:{digest.hexdigest()}"

    def image_bytes(self, rows: np.ndarray) -> Iterator[bytes | np.ndarray]:
        for row in rows:
            self.reads += 1
            yield self.images[row]
