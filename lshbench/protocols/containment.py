"""Sets of images: a query of few images asks for the sets that have all of its labels."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from lshbench.data.base import Dataset, Split
from lshbench.data.sets import POOLINGS, SetSplit
from lshbench.data.values import check_number
from lshbench.errors import UsageError, wrong_value
from lshbench.protocols.splits import SplitProtocol, refuse_unlabelled

log = logging.getLogger(__name__)


class ContainmentProtocol(SplitProtocol):
    """Items are sets of a data set's images; every image is in one set at most.

    Queries are of the query split's images.  Some of the gallery split's are in sets to train on, every other one of
    them as small as a query; the others are in the gallery's sets.

    Args:
        query_images: the fewest and the most images of a query.
        set_images: the fewest and the most images of a gallery item.
        train_share: of the gallery split's images, those in sets to train on.
        pooling: a set's features are its images' in each coordinate: the largest (``max``) or the ``mean``.
        split_seed: decides the sets.
    """

    def __init__(
        self,
        query_images: Sequence[int],
        set_images: Sequence[int],
        train_share: float,
        pooling: str,
        split_seed: int = 0,
        duplicates: str = "report",
        allow_leak: bool = False,
    ) -> None:
        super().__init__(duplicates, allow_leak)
        for key, value in (("query_images", query_images), ("set_images", set_images)):
            if not _is_range(value):
                raise wrong_value(f"protocol.{key}", value, "the fewest and the most images of a set, such as [1, 2]")
        if not 0 < train_share < 1:
            raise wrong_value("protocol.train_share", train_share, "a share of the images between 0 and 1")
        if pooling not in POOLINGS:
            raise wrong_value("protocol.pooling", pooling, " or ".join(POOLINGS))
        check_number("protocol.split_seed", split_seed, 0)
        self.query_images, self.set_images = query_images, set_images
        self.train_share, self.pooling, self.split_seed = train_share, pooling, split_seed

    def arrange(self, dataset: Dataset) -> Dataset:
        refuse_unlabelled(dataset.labels, "makes sets of labelled images")
        if dataset.train_items is not None or dataset.same_split:
            raise UsageError(
                "protocol=containment makes sets of a gallery's and of queries' images, and trains on some of the "
                "gallery's: expected a data set with these two splits and no training set of its own"
            )
        labels = dataset.labels
        classes = labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1
        generator = np.random.default_rng([self.split_seed, 0x5E75])
        of_gallery = generator.permutation(len(dataset.gallery))
        of_train, of_gallery = np.split(of_gallery, [round(self.train_share * len(of_gallery))])

        def sets(split: Split, items: np.ndarray, name: str, *ranges: Sequence[int]) -> SetSplit:
            offsets = cut(len(items), ranges, generator)
            if len(offsets) < 2:
                raise UsageError(f"protocol: {len(items)} images are too few for {name}: expected more of them")
            log.info("%s: %d sets of %d images, %d left over", name, len(offsets) - 1, offsets[-1],
                     len(items) - offsets[-1])  # fmt: skip
            members = items[: offsets[-1]]
            return SetSplit(split, members, offsets, classes, self.pooling, f"{split.name}[{name}]")

        return Dataset(
            dataset.name,
            sets(dataset.gallery, of_gallery, "sets", self.set_images),
            sets(dataset.query, generator.permutation(len(dataset.query)), "queries", self.query_images),
            train=sets(dataset.gallery, of_train, "training sets", self.query_images, self.set_images),
        )


def cut(items: int, ranges: Sequence[Sequence[int]], generator: np.random.Generator) -> np.ndarray:
    """Return where sets of items begin and end, int64 ``(n + 1,)``, as many sets as there are items for.

    Args:
        items: how many there are.
        ranges: fewest and most items of a set, for the first set, the second ..., in turn.
        generator: draws the sizes.
    """
    count = items // min(fewest for fewest, _ in ranges)
    sizes = np.stack([generator.integers(fewest, most + 1, count) for fewest, most in ranges], axis=1).ravel()
    ends = np.cumsum(sizes)
    return np.concatenate([[0], ends[ends <= items]])


def _is_range(value: object) -> bool:
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        return False
    return all(type(number) is int for number in value) and 1 <= value[0] <= value[1]
