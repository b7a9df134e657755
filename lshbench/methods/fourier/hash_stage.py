"""The second stage of the staged methods: the hash layer is trained on fixed hidden representations.

Neither the gallery's map nor a list of all query-gallery pairs is ever made: what a loss needs is drawn for each batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lshbench.methods.fourier.base import FourierHasher
from lshbench.methods.fourier.losses import query_agnostic, query_aware
from lshbench.methods.fourier.network import FourierNetwork
from lshbench.training.data import Batch, TrainingData
from lshbench.training.loop import Terms
from lshbench.types import Progress, Side

BUCKET_BITS = 8
"""A query's positives are as many as would fill one bucket of a table of so many bits."""

NEGATIVES = 2048
"""Gallery items drawn against a query's positives at a time."""

AGNOSTIC_ITEMS = 1024
"""Queries and gallery items in a batch of the query-agnostic objective."""

ENCODE_ROWS = 4096
HINGE_CELLS = 1 << 25


class HashStage(ABC):
    """Base class of the objectives.

    Args:
        method: its weights, and which encoder queries are hashed by.
        network: its encoders are trained.
        data: the training part.
        queries: which of its items stand as queries, int64 ``(q,)``.
    """

    def __init__(self, method: FourierHasher, network: FourierNetwork, data: TrainingData, queries: np.ndarray) -> None:
        self.method, self.network, self.queries = method, network, queries
        self.gallery_hidden = self.hidden(data, np.arange(len(data)), "gallery")
        self.query_hidden = self.hidden(data, queries, method.hashed_by("query"))

    @abstractmethod
    def loss(self, batch: Batch) -> Terms:
        """Return the terms for what is drawn by the batch's generator, whatever the batch's item."""

    def hidden(self, data: TrainingData, rows: np.ndarray, side: Side) -> Tensor:
        """Return the hidden representations of items by one side's encoder, ``(n, hidden[-1])``."""
        with torch.no_grad():
            blocks = [
                self.network.encode(self.network.prepare(data.take(rows[start : start + ENCODE_ROWS])[0]), side)
                for start in range(0, len(rows), ENCODE_ROWS)
            ]
        return torch.cat(blocks)


class QueryAwareStage(HashStage):
    """One query against the gallery at a time: ranking, fence and balance of codes.

    The positives are the floor(n / 2^8) gallery items of least hinge distance sum_d max(0, q_d - c_d), which
    the map's products estimate.
    """

    def __init__(
        self,
        method: FourierHasher,
        network: FourierNetwork,
        data: TrainingData,
        queries: np.ndarray,
        progress: Progress,
    ) -> None:
        super().__init__(method, network, data, queries)
        self.prepare(data)
        count = max(1, min(len(data) >> BUCKET_BITS, len(data) // 2))
        self.positives = np.empty((len(queries), count), np.int64)
        with progress("bucket-sized positives", total=len(queries), unit="queries") as advance:
            for number, row in enumerate(queries):
                distances = self.distances(number, row)
                distances[row] = torch.inf
                self.positives[number] = distances.topk(count, largest=False).indices.cpu().numpy()
                advance(1)

    def prepare(self, data: TrainingData) -> None:
        """Compute what :meth:`distances` needs: the map's input of all items, ``(n, map_dim)``."""
        with torch.no_grad():
            blocks = [
                self.network.mapped(data.take(rows)[0])
                for rows in np.array_split(np.arange(len(data)), max(1, len(data) // ENCODE_ROWS))
            ]
        self.mapped = torch.cat(blocks)

    def distances(self, number: int, row: int) -> Tensor:
        """Return the distances of all gallery items to a query, given its number and its row; ``(n,)``."""
        query = self.mapped[row]
        step = max(1, HINGE_CELLS // self.mapped.shape[1])
        parts = [(query - block).clamp_(min=0).sum(1) for block in self.mapped.split(step)]
        return torch.cat(parts)

    def loss(self, batch: Batch) -> Terms:
        query, gallery, relevant = self.draw(batch.generator)
        return query_aware(query, gallery, relevant, self.method.fence_weight, self.method.ranking_weight)

    def draw(self, generator: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return a query's code ``(bits,)``, gallery items' codes ``(n, bits)``, and which are relevant ``(n,)``."""
        number = int(generator.integers(len(self.queries)))
        positives = self.positives[number]
        others = generator.integers(len(self.gallery_hidden), size=NEGATIVES)
        others = others[~np.isin(others, positives) & (others != self.queries[number])]
        rows = torch.from_numpy(np.concatenate([positives, others])).to(self.gallery_hidden.device)
        relevant = torch.arange(len(rows), device=rows.device) < len(positives)
        query = torch.tanh(self.network.hash(self.query_hidden[number]))
        gallery = torch.tanh(self.network.hash(self.gallery_hidden[rows]))
        return query, gallery, relevant


class QueryAgnosticStage(HashStage):
    """Fence, decorrelation and balance of codes of both sides, drawn alike; there are no positives.

    Args:
        decorrelation_weight: of uncorrelated bits.
    """

    def __init__(
        self,
        method: FourierHasher,
        network: FourierNetwork,
        data: TrainingData,
        queries: np.ndarray,
        decorrelation_weight: float,
    ) -> None:
        super().__init__(method, network, data, queries)
        self.decorrelation_weight = decorrelation_weight
        self.both = torch.cat([self.query_hidden, self.gallery_hidden])

    def loss(self, batch: Batch) -> Terms:
        drawn = torch.from_numpy(batch.generator.integers(len(self.both), size=AGNOSTIC_ITEMS))
        codes = torch.tanh(self.network.hash(self.both[drawn.to(self.both.device)]))
        return query_agnostic(codes, self.method.fence_weight, self.decorrelation_weight)


class DesignStage(QueryAwareStage):
    """The query-aware stage without a map: positives are the items of highest learnt cosine, the fence is squared."""

    def hidden(self, data: TrainingData, rows: np.ndarray, side: Side) -> Tensor:
        return functional.normalize(super().hidden(data, rows, side))

    def prepare(self, data: TrainingData) -> None:
        """Do nothing: cosines are taken of the hidden representations."""

    def distances(self, number: int, row: int) -> Tensor:
        return -(self.gallery_hidden @ self.query_hidden[number])

    def loss(self, batch: Batch) -> Terms:
        query, gallery, relevant = self.draw(batch.generator)
        terms = query_aware(query, gallery, relevant, self.method.fence_weight, self.method.ranking_weight)
        return terms | {"fence": self.method.fence_weight * ((gallery.abs() - 1) ** 2).mean()}
