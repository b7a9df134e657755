"""A training set on its device: the part that is learnt from, in batches, and the part that models are chosen by.

Imports torch: import this module where a trained method is used, not from the command line.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lshbench.errors import UsageError
from lshbench.runtime import scratch
from lshbench.training.settings import Training
from lshbench.types import Features, Supervision

RESIDENT_BYTES = 2 << 30
"""A training set up to this size is moved to the device once; a larger one is read batch by batch."""

VALIDATION_ITEMS = 2_500
"""Items held out at most: enough for a standard error of mAP of some .005."""

VALIDATION_GALLERY = 5_000
"""Items that they are looked for among at most."""


@dataclass(frozen=True)
class Batch:
    """Items of the training part.

    Attributes:
        x: features as they came, float32 ``(n, d)``, on the device.
        y: labels, int64 ``(n,)``, or bool ``(n, classes)``, on the device.
        rows: which items of :class:`TrainingData`'s training part they are, int64 ``(n,)``.
        generator: for what a loss draws in NumPy; decided by seed, epoch and the batch's number.
    """

    x: Tensor
    y: Tensor
    rows: np.ndarray
    generator: np.random.Generator


class TrainingData:
    """A training set, split into the part that is learnt from and the part that models are chosen by.

    The validation part is the same for the same seed, and has each class in proportion.  Labels are renumbered 0 to
    ``classes - 1``; without supervision all are 0, and the validation part is drawn blindly.  A set of up to
    ``RESIDENT_BYTES`` lies on the device; a larger one stays where it is.

    Attributes:
        rows: rows of the training set that are learnt from, int64 ``(n,)``.
        validation_rows: the others, int64; empty for ``validation=0``.
        labels: int64 ``(n,)`` or bool ``(n, classes)``, of the items learnt from.
        classes: how many classes there are.
        source: all features of the training set, as given.
    """

    def __init__(
        self,
        train: Features,
        settings: Training,
        seed: int,
        device: torch.device,
        supervision: Supervision = "labels",
    ) -> None:
        self.supervision = supervision
        if supervision == "none":
            # Labels end here, so that nothing after this line can look at them.
            labels, self.classes = np.zeros(len(train), np.int64), 1
        elif train.y.ndim == 1:
            names, labels = np.unique(train.y, return_inverse=True)
            self.classes = len(names)
        else:
            labels, self.classes = train.y, train.y.shape[1]
        generator = np.random.default_rng([seed, 1])
        part = min(settings.validation, VALIDATION_ITEMS / max(len(labels), 1))
        self.validation_rows = held_out(labels, part, generator)
        self.rows = np.setdiff1d(np.arange(len(labels)), self.validation_rows)
        if len(self.rows) < 2:
            raise UsageError(f"{len(self.rows)} training items are too few to learn from: expected at least 2")
        self.labels = labels[self.rows]
        self.device = device
        self._all_labels = torch.from_numpy(np.ascontiguousarray(labels)).to(device)
        self.source = train.x
        self._resident: Tensor | None = None
        if train.x.nbytes <= RESIDENT_BYTES:
            self._resident = torch.tensor(np.asarray(train.x, np.float32), device=device)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def inputs(self) -> int:
        """The features' width."""
        return self.source.shape[1]

    def features(self, rows: np.ndarray) -> Tensor:
        """Return features of rows of the whole training set, float32 ``(len(rows), d)``, on the device."""
        if self._resident is not None:
            return self._resident.index_select(0, torch.from_numpy(rows).to(self.device))
        order = np.argsort(rows, kind="stable")  # a memory map is read fastest in its own order
        block = np.empty((len(rows), self.inputs), np.float32)
        block[order] = self.source[rows[order]]
        scratch.release(self.source)
        return torch.from_numpy(block).to(self.device)

    def take(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return features and labels of items of the training part, numbered from 0 to ``len(self) - 1``."""
        whole = self.rows[rows]
        return self.features(whole), self._all_labels[torch.from_numpy(whole).to(self.device)]

    def batches(self, settings: Training, seed: int, epoch: int) -> Iterator[Batch]:
        """Yield an epoch's batches: fresh permutations, decided by seed and epoch, cut to equal sizes."""
        generator = np.random.default_rng([seed, 2, epoch])
        size, count = self.batch_size(settings), self.batches_per_epoch(settings)
        passes = math.ceil(count * size / len(self))
        rows = np.concatenate([generator.permutation(len(self)) for _ in range(passes)])
        for number in range(count):
            chosen = rows[number * size : (number + 1) * size]
            yield Batch(*self.take(chosen), chosen, np.random.default_rng([seed, 5, epoch, number]))

    def batches_per_epoch(self, settings: Training) -> int:
        """Return how many batches :meth:`batches` yields."""
        count = max(settings.min_batches, len(self) // self.batch_size(settings))
        return min(count, settings.max_batches) if settings.max_batches else count

    def batch_size(self, settings: Training) -> int:
        """Return how many items a batch has."""
        # Small sets take smaller batches, down to 32: too few steps cost more than noisy ones.
        return min(settings.batch_size, max(32, len(self) // 8), len(self))

    def validation_sample(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return rows of the whole training set to take as validation queries and as their gallery."""
        generator = np.random.default_rng([seed, 3])
        queries = self.validation_rows
        gallery = generator.permutation(self.rows)[:VALIDATION_GALLERY]
        return queries, np.sort(gallery)

    def labels_of(self, rows: np.ndarray) -> Tensor:
        """Return labels of rows of the whole training set, on the device."""
        return self._all_labels[torch.from_numpy(rows).to(self.device)]


def held_out(labels: np.ndarray, part: float, generator: np.random.Generator) -> np.ndarray:
    """Return sorted rows of a random part of a data set, from each class in proportion (single labels).

    A class gives none if that would leave it without items to learn from.
    """
    if part == 0:
        return np.empty(0, np.int64)
    shuffled = generator.permutation(len(labels))
    if labels.ndim == 2:
        return np.sort(shuffled[: int(len(labels) * part)])
    # Every 1/part-th item of the shuffled order sorted by class: proportions hold to within one item.
    ordered = shuffled[np.argsort(labels[shuffled], kind="stable")]
    chosen = ordered[
        (np.arange(len(labels)) * part).astype(np.int64) != ((np.arange(len(labels)) + 1) * part).astype(np.int64)
    ]
    sizes, taken = np.bincount(labels), np.bincount(labels[chosen], minlength=labels.max() + 1)
    return np.sort(chosen[(taken < sizes)[labels[chosen]]])
