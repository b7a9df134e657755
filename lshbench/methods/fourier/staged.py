"""The two trained stages of FourierHashNet as published: first the reduction of the map, then the hash layer.

Neither the gallery's map nor the list of all query-gallery pairs is ever made: pairs are drawn batch by
batch, one relevant for one irrelevant, and the map is computed for a batch at a time.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lshbench.methods.base import Epoch
from lshbench.methods.fourier.network import FourierNetwork
from lshbench.training import losses
from lshbench.training.data import Batch, TrainingData
from lshbench.training.loop import Terms, train_model
from lshbench.training.neighbors import NeighborGraph
from lshbench.types import Progress, Side

if TYPE_CHECKING:
    from lshbench.methods.fourier.joint import Recipe

TRAINING_QUERIES = 400
"""Training items that stand as queries when the hash layer is trained."""

BUCKET_BITS = 8
"""A query's positives for the hash layer are what would fill one bucket of a table of so many bits."""

NEGATIVES = 2048
"""Gallery items drawn against a query's positives at a time."""

AGNOSTIC_ITEMS = 1024
"""Queries and gallery items in a batch of the query-agnostic objective."""

REDUCTION_LOSSES = {
    "cross_entropy": losses.cosine_cross_entropy,
    "squares": losses.cosine_squares,
    "ranking": losses.pairwise_ranking,
}
"""Of cosines of pairs and whether these are relevant, by what ``reduction_loss`` calls them."""

HASH_EPOCHS = 20
ENCODE_ROWS = 4096
HINGE_CELLS = 1 << 25


def train_in_stages(
    network: FourierNetwork,
    data: TrainingData,
    graph: NeighborGraph | None,
    settings: Recipe,
    recipe: str,
    seed: int,
    progress: Progress,
    checkpoint: Path | None,
) -> tuple[list[Epoch], int | None]:
    """Train the encoders on pairs, then the hash layer on rankings; return both curves and the last stage's
    epoch.

    Epochs of the second stage are numbered on from the first; their terms tell them apart.
    """
    pairs = PairSampler(data, graph)
    queries = np.arange(len(data))
    if recipe == "design":  # a thousand training images are its queries
        queries = np.sort(np.random.default_rng([seed, 8]).permutation(len(data))[:1000])

    def reduction_loss(batch: Batch) -> Terms:
        first, second, relevant = pairs.draw(queries, len(batch.rows), batch.generator)
        left = network.reduce(network.prepare(data.take(first)[0]), "query")
        right = network.reduce(network.prepare(data.take(second)[0]), "gallery")
        cosines = torch.cosine_similarity(left, right)
        wanted = torch.from_numpy(relevant.astype(np.float32)).to(cosines.device)
        if recipe == "design":
            entropy = torch.nn.functional.binary_cross_entropy(cosines.clamp(1e-6, 1 - 1e-6), wanted)
            return {"reduction": entropy}
        return {"reduction": REDUCTION_LOSSES[settings.reduction_loss](cosines, wanted)}

    def reduced(x: Tensor, side: Side) -> Tensor:
        return torch.nn.functional.normalize(network.reduce(network.prepare(x), side))

    first = train_model(
        network.encoders,
        reduction_loss,
        reduced,
        data,
        settings.training,
        seed,
        progress,
        _stage_file(checkpoint, 1),
        "reduction of the map",
        ranking="cosine",
    )
    stage = HashStage(network, data, settings, recipe, seed, progress)
    hash_training = replace(
        settings.training, epochs=HASH_EPOCHS, batch_size=1, min_batches=1, max_batches=TRAINING_QUERIES
    )
    second = train_model(
        network.hash,
        stage.loss,
        lambda x, side: network(x, "gallery" if recipe == "design" else side),
        data,
        hash_training,
        seed,
        progress,
        _stage_file(checkpoint, 2),
        "hash layer",
    )
    shift = len(first.history)
    later = [replace(row, epoch=row.epoch + shift) for row in second.history]
    chosen = None if second.chosen_epoch is None else second.chosen_epoch + shift
    return first.history + later, chosen


def _stage_file(checkpoint: Path | None, stage: int) -> Path | None:
    return None if checkpoint is None else checkpoint.with_name(f"{checkpoint.stem}-{stage}{checkpoint.suffix}")


class PairSampler:
    """Draws pairs of training items, as many relevant as irrelevant ones, without listing them.

    Args:
        data: the training part; items with a label in common are relevant to each other.
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
        return self.item[starts + (generator.random(len(rows)) * (stops - starts)).astype(np.int64)]

    def _relevant(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        if self.graph is not None:
            return (first == second) | (self.graph.partners[first] == second[:, None]).any(1)
        if self.labels.ndim == 1:
            return self.labels[first] == self.labels[second]
        return (self.labels[first] & self.labels[second]).any(1)


class HashStage:
    """One query against the gallery at a time: ranking, fence and balance of codes.

    The positives are the floor(n / 2^8) gallery items of least hinge distance sum_d max(0, q_d - c_d), which
    the map's products stand for; in the ``design`` recipe, which has no map, those of highest learnt cosine.

    The query-agnostic objective has no positives: fence, decorrelation and balance of codes of both sides, drawn
    alike.
    """

    def __init__(
        self,
        network: FourierNetwork,
        data: TrainingData,
        settings: Recipe,
        recipe: str,
        seed: int,
        progress: Progress,
    ) -> None:
        self.network, self.settings, self.recipe = network, settings, recipe
        generator = np.random.default_rng([seed, 9])
        self.queries = np.sort(generator.permutation(len(data))[:TRAINING_QUERIES])
        self.gallery_maps = self._reduce(data, np.arange(len(data)), "gallery")
        # Both sides are hashed by the gallery's network in the design.
        self.query_maps = self._reduce(data, self.queries, "gallery" if recipe == "design" else "query")
        if settings.hash_objective == "query_agnostic":
            self.all_maps = torch.cat([self.query_maps, self.gallery_maps])
            return
        count = max(1, min(len(data) >> BUCKET_BITS, len(data) // 2))
        self.positives = np.empty((len(self.queries), count), np.int64)
        with progress("bucket-sized positives", total=len(self.queries), unit="queries") as advance:
            for number, row in enumerate(self.queries):
                distances = self._distances(data, number, row)
                distances[row] = torch.inf
                self.positives[number] = distances.topk(count, largest=False).indices.cpu().numpy()
                advance(1)

    def loss(self, batch: Batch) -> Terms:
        """Return the terms for one query, or for a draw from both sides, whatever the batch's item."""
        settings, generator = self.settings, batch.generator
        if settings.hash_objective == "query_agnostic":
            drawn = generator.integers(len(self.all_maps), size=AGNOSTIC_ITEMS)
            codes = torch.tanh(self.network.hash(self.all_maps[torch.from_numpy(drawn).to(self.all_maps.device)]))
            return losses.query_agnostic(codes, settings.fence_weight, settings.decorrelation_weight)
        number = int(generator.integers(len(self.queries)))
        positives = self.positives[number]
        others = generator.integers(len(self.gallery_maps), size=NEGATIVES)
        others = others[~np.isin(others, positives) & (others != self.queries[number])]
        rows = torch.from_numpy(np.concatenate([positives, others])).to(self.gallery_maps.device)
        relevant = torch.arange(len(rows), device=rows.device) < len(positives)
        query = torch.tanh(self.network.hash(self.query_maps[number]))
        gallery = torch.tanh(self.network.hash(self.gallery_maps[rows]))
        terms = losses.query_aware(query, gallery, relevant, settings.fence_weight, settings.ranking_weight)
        if self.recipe == "design":
            squares = ((gallery.abs() - 1) ** 2).mean()
            return terms | {"fence": settings.fence_weight * squares}
        return terms

    def _reduce(self, data: TrainingData, rows: np.ndarray, side: Side) -> Tensor:
        with torch.no_grad():
            blocks = [
                self.network.reduce(self.network.prepare(data.take(rows[start : start + ENCODE_ROWS])[0]), side)
                for start in range(0, len(rows), ENCODE_ROWS)
            ]
        return torch.nn.functional.normalize(torch.cat(blocks)) if self.recipe == "design" else torch.cat(blocks)

    def _distances(self, data: TrainingData, number: int, row: int) -> Tensor:
        if self.recipe == "design":
            return -(self.gallery_maps @ self.query_maps[number])
        if not hasattr(self, "_components"):
            self._components = self._mapped(data)
        query = self._components[row]
        step = max(1, HINGE_CELLS // self._components.shape[1])
        parts = [(query - block).clamp_(min=0).sum(1) for block in self._components.split(step)]
        return torch.cat(parts)

    def _mapped(self, data: TrainingData) -> Tensor:
        """Return what the map takes of all items, ``(n, map_dim)``."""
        with torch.no_grad():
            blocks = [
                self.network.mapped(data.take(rows)[0])
                for rows in np.array_split(np.arange(len(data)), max(1, len(data) // ENCODE_ROWS))
            ]
        return torch.cat(blocks)
