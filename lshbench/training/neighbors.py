"""Mutual nearest neighbours among training items, which stand for labels in training without them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lshbench.runtime.shared_work import once
from lshbench.training.data import TrainingData
from lshbench.training.heads import Components, Standardise
from lshbench.types import Progress

CELLS = 1 << 25
"""Cosines computed at a time: bounds memory whatever the number of items."""

COMPONENTS = 256
"""Principal components that cosines of neighbours are taken of."""


def neighbor_graph(data: TrainingData, count: int, seed: int, progress: Progress) -> NeighborGraph:
    """Return the mutual nearest neighbours of the training part, by cosine of standardised features.

    Args:
        data: the training set.
        count: nearest neighbours of each item that are looked at.
        seed: decides the sample that the components are learnt from.
        progress: shown while it runs.
    """
    return NeighborGraph(nearest_neighbors(leading_components(data, seed), count, progress))


def leading_components(data: TrainingData, seed: int) -> Tensor:
    """Return what cosines of the training part's items are taken of, ``(n, c)``, on the device.

    The leading principal components of the standardised features hold nearly all of their cosines at a fifth of the
    work.
    """
    standardise = Standardise(data.inputs)
    standardise.learn(data.source)
    components = Components(data.inputs, min(COMPONENTS, data.inputs), 1.0)
    components.learn(standardise, data.source, seed)
    rotate = nn.Sequential(standardise, components).to(data.device)
    blocks = np.array_split(np.arange(len(data)), max(1, len(data) // 8192))
    return torch.cat([rotate(data.take(rows)[0]) for rows in blocks])


def nearest_neighbors(vectors: Tensor, count: int, progress: Progress) -> np.ndarray:
    """Return the nearest other items of each item by cosine, nearest first, int64 ``(n, count)``; exact.

    Args:
        vectors: ``(n, d)``, on the device to compute on.
        count: neighbours of each item; at most n - 1 are returned.
        progress: shown while it runs.
    """

    def search() -> dict[str, np.ndarray]:
        return {"neighbors": _nearest_neighbors(vectors, count, progress)}

    operations = len(vectors) ** 2 * vectors.shape[1]
    setting = count, str(vectors.device), torch.__version__
    return once("neighbors", {"vectors": vectors.cpu().numpy()}, operations, search, *setting)["neighbors"]


def _nearest_neighbors(vectors: Tensor, count: int, progress: Progress) -> np.ndarray:
    unit = functional.normalize(vectors)
    count = min(count, len(unit) - 1)
    result = np.empty((len(unit), count), np.int64)
    with progress("nearest neighbours", total=len(unit), unit="items") as advance:
        step = max(1, CELLS // len(unit))
        for start in range(0, len(unit), step):
            block = unit[start : start + step]
            cosines = block @ unit.T
            rows = torch.arange(len(block), device=unit.device)
            cosines[rows, rows + start] = -torch.inf
            result[start : start + len(block)] = cosines.topk(count, dim=1).indices.cpu().numpy()
            advance(len(block))
    return result


def mutual(neighbors: np.ndarray) -> np.ndarray:
    """Return which of the neighbours have the item among their own, bool, shaped as ``neighbors`` (n, k)."""
    count, width = neighbors.shape
    items = np.repeat(np.arange(count, dtype=np.int64), width)
    forward = items * count + neighbors.ravel()
    backward = neighbors.ravel() * count + items
    return np.isin(backward, forward).reshape(neighbors.shape)


class NeighborGraph:
    """Mutual nearest neighbours, for drawing partners and for telling which pairs of a batch are neighbours.

    An item without any mutual neighbour has its nearest one.

    Args:
        neighbors: int64 ``(n, k)``, nearest first.
    """

    def __init__(self, neighbors: np.ndarray) -> None:
        both_ways = mutual(neighbors)
        both_ways[~both_ways.any(1), 0] = True
        self.counts = both_ways.sum(1)
        # Mutual neighbours to the front, in order of nearness; the rest of a row is -1.
        order = np.argsort(~both_ways, axis=1, kind="stable")
        self.partners = np.take_along_axis(neighbors, order, axis=1)[:, : self.counts.max()]
        self.partners[np.arange(self.partners.shape[1]) >= self.counts[:, None]] = -1

    def draw(self, rows: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Return one neighbour of each item, int64 ``(len(rows),)``."""
        column = (generator.random(len(rows)) * self.counts[rows]).astype(np.int64)
        return self.partners[rows, column]

    def related(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return which items of ``second`` are neighbours of each of ``first``, or the same: bool ``(n, m)``.

        An item drawn as another's neighbour may meet itself in a batch: it is no stranger to itself.
        """
        distinct, place = np.unique(second, return_inverse=True)
        neighbors = self.partners[first]
        at = np.minimum(np.searchsorted(distinct, neighbors), len(distinct) - 1)
        row, column = np.nonzero(distinct[at] == neighbors)
        found = np.zeros((len(first), len(distinct)), bool)
        found[row, at[row, column]] = True
        return found[:, place] | (first[:, None] == second[None, :])
