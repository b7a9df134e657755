"""Sets of a split's items: one item made of several, with the labels of all of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lshbench.data.base import Split
from lshbench.data.fingerprint import bytes_digest, combine
from lshbench.types import Progress

POOLINGS = ("max", "mean")
ROWS = 1024
"""Sets pooled at a time."""


@dataclass(eq=False)
class SetSplit(Split):
    """Sets of another split's items.  A set has every label that one of its items has.

    Its features are its items', the largest or the mean in each coordinate; its picture is theirs, side by side.

    Args:
        whole: the split that the items are of.
        members: their rows, set after set, int64 ``(m,)``.
        offsets: int64 ``(n + 1,)``; set ``i`` has ``members[offsets[i]:offsets[i + 1]]``, at least one.
        classes: how many classes the data set has.
        pooling: ``max`` or ``mean``.
        name: the split's name.
    """

    whole: Split
    members: np.ndarray
    offsets: np.ndarray
    classes: int
    pooling: str
    name: str

    def __post_init__(self) -> None:
        self.kind, self.class_names = self.whole.kind, self.whole.class_names
        self.width = getattr(self.whole, "width", None)
        self.remote, self.on_disk = self.whole.remote, self.whole.on_disk
        labels = self.whole.labels[self.members]
        of_items = labels if labels.ndim == 2 else labels[:, None] == np.arange(self.classes)
        self.labels = np.logical_or.reduceat(of_items, self.offsets[:-1])

    def members_of(self, rows: np.ndarray | Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the items of some sets, int64, set after set, and where each set begins and ends among them."""
        sizes = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], sizes)
        return self.members[np.repeat(self.offsets[rows], sizes) + within], offsets

    def pool(self, x: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the features of sets, float32 ``(len(rows), d)``, from those of all items, float32 ``(n, d)``."""
        pooled = np.empty((len(rows), x.shape[1]), np.float32)
        for start in range(0, len(rows), ROWS):
            members, offsets = self.members_of(rows[start : start + ROWS])
            combine = np.maximum if self.pooling == "max" else np.add
            block = combine.reduceat(x[members], offsets[:-1])
            pooled[start : start + ROWS] = block if self.pooling == "max" else block / np.diff(offsets)[:, None]
        return pooled

    def fingerprint(self, rows: np.ndarray | None = None) -> str:
        parts = (bytes_digest(np.ascontiguousarray(part, "<i8").tobytes()) for part in (self.members, self.offsets))
        return combine("sets", self.whole.fingerprint(), self.pooling, *parts)

    def read_features(self, rows: np.ndarray, progress: Progress) -> np.ndarray:
        return self.pool(self.whole.read_features(np.arange(len(self.whole)), progress), rows)

    def image_bytes(self, rows: np.ndarray) -> Iterator[bytes | np.ndarray]:
        from lshbench.data.images import decode

        for row in rows:
            members = self.members_of([row])[0]
            names = map(self.whole.describe, members.tolist())
            images = zip(self.whole.image_bytes(members), names, strict=True)
            yield side_by_side([np.asarray(decode(image, name)) for image, name in images])

    def describe(self, row: int) -> str:
        return " + ".join(self.whole.describe(int(member)) for member in self.members_of([row])[0])


def side_by_side(images: Sequence[np.ndarray]) -> np.ndarray:
    """Return images, uint8 ``(h, w, 3)``, as the tiles of a white picture, all of the first one's size."""
    from PIL import Image

    height, width, _ = images[0].shape
    columns = math.ceil(math.sqrt(len(images)))
    picture = np.full((math.ceil(len(images) / columns) * height, columns * width, 3), 255, np.uint8)
    for number, image in enumerate(images):
        top, left = number // columns * height, number % columns * width
        tile = image if image.shape == images[0].shape else Image.fromarray(image).resize((width, height))
        picture[top : top + height, left : left + width] = tile
    return picture
