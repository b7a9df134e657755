"""Pairs of training items for the encoders' stage of the staged methods."""

from __future__ import annotations

import numpy as np

from lshbench.training.data import TrainingData
from lshbench.training.neighbors import NeighborGraph


class PairSampler:
    """Draws pairs of training items, as many relevant as irrelevant ones, without listing them.

    Args:
        data: the training part; items with a label in common are relevant to each other, one without any to itself.
        graph: neighbours, which are relevant in place of those.
    """

    def __init__(self, data: TrainingData, graph: NeighborGraph | None) -> None:
        self.graph, self.labels = graph, data.labels
        if data.labels.ndim == 1:
            self.item, self.label = np.arange(len(data)), data.labels
        else:
            self.item, self.label = np.nonzero(data.labels)
        order = np.argsort(self.label, kind="stable")
        self.item, self.label = self.item[order], self.label[order]
        self.starts = np.searchsorted(self.label, np.arange(data.classes + 1))

    def draw(
        self, queries: np.ndarray, count: int, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return query rows, gallery rows and relevance, ``(count,)`` each; the first half relevant."""
        first = generator.choice(queries, count)
        half = count // 2
        positives = self._positives(first[:half], generator)
        negatives = generator.integers(len(self.labels), size=count - half)
        for _ in range(20):
            wrong = self._relevant(first[half:], negatives)
            negatives[wrong] = generator.integers(len(self.labels), size=int(wrong.sum()))
        second = np.concatenate([positives, negatives])
        return first, second, np.concatenate([np.ones(half, bool), self._relevant(first[half:], negatives)])

    def _positives(self, rows: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        if self.graph is not None:
            return self.graph.draw(rows, generator)
        if self.labels.ndim == 1:
            label = self.labels[rows]
        else:
            label = (self.labels[rows] * generator.random(self.labels[rows].shape)).argmax(1)
        starts, stops = self.starts[label], self.starts[label + 1]
        found = self.item[starts + (generator.random(len(rows)) * (stops - starts)).astype(np.int64)]
        return found if self.labels.ndim == 1 else np.where(self.labels[rows].any(1), found, rows)

    def _relevant(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        if self.graph is not None:
            return (first == second) | (self.graph.partners[first] == second[:, None]).any(1)
        if self.labels.ndim == 1:
            return self.labels[first] == self.labels[second]
        return (first == second) | (self.labels[first] & self.labels[second]).any(1)
