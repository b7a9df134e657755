"""A head trained by cross-entropy to tell classes apart: what labels give without a code.

Imports torch: import this module where a classifier is trained, not from the command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lshbench.runtime import scratch
from lshbench.training.data import Batch, TrainingData
from lshbench.training.heads import Head, Standardise
from lshbench.training.loop import Terms, seeded, train_model
from lshbench.training.settings import Training
from lshbench.types import Features, Progress

ROWS = 8192
"""Items classified at a time."""


@dataclass(frozen=True)
class Classifier:
    """A trained classifier.

    Attributes:
        network: features ``(n, d)`` to a logit for each class, ``(n, classes)``; in evaluation mode.
        classes: labels in the order of the outputs, int64 ``(classes,)``; of bool labels, the columns' numbers.
        several: whether an item may have several classes, so that each output is a sigmoid of its own; else they are
            one softmax.
        chosen_epoch: whose weights it has, from 1.
        device: where the network is.
    """

    network: nn.Sequential
    classes: np.ndarray
    several: bool
    chosen_epoch: int | None
    device: torch.device

    @property
    def parameters(self) -> int:
        """How many numbers were learnt, statistics of the features included, as methods count them."""
        return sum(tensor.numel() for tensor in self.network.state_dict().values())

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """Return each class's probability for items, float32 ``(n, classes)``; of many items, the map of a file."""
        found = scratch.empty((len(x), len(self.classes)))
        with torch.inference_mode():
            for start in range(0, len(x), ROWS):
                block = torch.tensor(np.asarray(x[start : start + ROWS], np.float32), device=self.device)
                logits = self.network(block)
                outputs = logits.sigmoid() if self.several else logits.softmax(1)
                found[start : start + ROWS] = outputs.float().cpu().numpy()
                scratch.release(x, found)
        return found

    def correct(self, probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return which items' most probable class is theirs, or one of theirs, bool ``(n,)``.

        Args:
            probabilities: as :meth:`probabilities` returns them.
            labels: of the items, int64 ``(n,)`` or bool ``(n, classes)``; may be of classes that training had not.
        """
        predicted = probabilities.argmax(1)
        return labels[np.arange(len(labels)), predicted] if self.several else self.classes[predicted] == labels


def train_classifier(
    train: Features, head: Head, training: Training, seed: int, device: torch.device, progress: Progress
) -> Classifier:
    """Train a head by cross-entropy and keep the epoch that finds validation items' labels most probable.

    Args:
        train: the training items, of which ``training.validation`` is held out as for every trained method.
        head: layers between standardised features and logits.
        training: budget and schedule.
        seed: decides weights, batches and the validation part.
        device: where to train.
        progress: shown while it trains.
    """
    data = TrainingData(train, training, seed, device)
    several = train.y.ndim == 2
    classes = np.arange(data.classes) if several else np.unique(train.y)
    with seeded(seed, device):
        standardise = Standardise(data.inputs)
        standardise.learn(train.x)
        network = nn.Sequential(standardise, *head.build(data.inputs, data.classes)).to(device)
    result = train_model(
        network,
        partial(_loss, network),
        lambda x, side: network(x),
        data,
        training,
        seed,
        progress,
        description="training the classifier, the reference",
        quality=partial(_validation_quality, data),
    )
    return Classifier(network, classes, several, result.chosen_epoch, device)


def _loss(network: nn.Module, batch: Batch) -> Terms:
    return {"class": _cross_entropies(network(batch.x), batch.y).mean()}


def _cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    """Return each item's cross-entropy, of several labels the mean over classes, ``(n,)``."""
    if labels.ndim == 1:
        return functional.cross_entropy(logits, labels, reduction="none")
    return functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none").mean(1)


def _validation_quality(data: TrainingData, network: nn.Module) -> float | None:
    """Return the probability of validation items' own labels, on average; None if there is no such part."""
    rows = data.validation_rows  # 2,500 items at most
    if not len(rows):
        return None
    network.eval()
    with torch.no_grad():
        # Not the accuracy: few items have the same in many epochs.
        return float((-_cross_entropies(network(data.features(rows)), data.labels_of(rows))).exp().mean())
