"""Mutual nearest neighbours among training items, which stand for labels in training without them."""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lshbench.runtime.shared_work import once
from lshbench.training.data import TrainingData
from lshbench.training.heads import Components, Standardise
from lshbench.types import Progress

log = logging.getLogger(__name__)

CELLS = 1 << 25
"""Cosines computed at a time: bounds memory whatever the number of items."""

COMPONENTS = 256
"""Principal components that cosines of neighbours are taken of."""

EXACT_ITEMS = 200_000
"""Items up to which each is compared with each; of more, the time would grow with their square."""
CELL_ITEMS, PROBES = 300, 32
"""Items in a cell of the index that takes over then, and cells that are looked into for each item."""
TRAINING_ITEMS = 40
"""Items that each cell's centre is learnt from."""
CHECKED_ITEMS = 500
"""Items whose neighbours are found exactly, too, to say how many the index finds."""
SEARCHED_ITEMS = 16_384


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
    """Return the nearest other items of each item by cosine, nearest first, int64 ``(n, count)``.

    Exact up to :data:`EXACT_ITEMS`; for more, most of the nearest, by an index of cells that is searched on the CPU.
    How many of a sample's nearest ones it finds is logged.

    Args:
        vectors: ``(n, d)``, on the device to compute on.
        count: neighbours of each item; at most n - 1 are returned.
        progress: shown while it runs.
    """
    exact = len(vectors) <= EXACT_ITEMS

    def search() -> dict[str, np.ndarray]:
        return {"neighbors": (_nearest_neighbors if exact else _indexed_neighbors)(vectors, count, progress)}

    compared = len(vectors) if exact else CELL_ITEMS * PROBES
    operations = len(vectors) * compared * vectors.shape[1]
    setting = (count, str(vectors.device), torch.__version__, *(() if exact else (CELL_ITEMS, PROBES, TRAINING_ITEMS)))
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


def _indexed_neighbors(vectors: Tensor, count: int, progress: Progress) -> np.ndarray:
    """Return most of the nearest neighbours: those in the cells around each item, whose centres are learnt."""
    import faiss

    unit = functional.normalize(vectors).cpu().numpy()
    items, dim = unit.shape
    count = min(count, items - 1)
    cells = max(1, items // CELL_ITEMS)
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, cells, faiss.METRIC_INNER_PRODUCT)
    index.nprobe = min(PROBES, cells)
    index.cp.max_points_per_centroid = TRAINING_ITEMS
    result = np.empty((items, count), np.int64)
    with progress("nearest neighbours", total=items, unit="items") as advance:
        index.train(unit)
        for start in range(0, items, SEARCHED_ITEMS):
            index.add(unit[start : start + SEARCHED_ITEMS])
        for start in range(0, items, SEARCHED_ITEMS):
            block = unit[start : start + SEARCHED_ITEMS]
            _, found = index.search(block, count + 1)
            result[start : start + len(block)] = _others(found, np.arange(start, start + len(block)))
            advance(len(block))
    sample = np.random.default_rng(0).choice(items, min(CHECKED_ITEMS, items), replace=False)
    share = np.mean(
        [len(np.intersect1d(result[i], near)) for i, near in zip(sample, _exact(unit, sample, count), strict=True)]
    )
    log.info(
        "neighbours of %s items come from an index, which finds %.1f %% of the nearest %d (of %d items)",
        f"{items:,}", 100 * share / count, count, len(sample),
    )  # fmt: skip
    return result


def _others(found: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Return what was found for each item without itself, and with its nearest in place of what was not found.

    Args:
        found: int64 ``(n, k + 1)``, nearest first, -1 at the end where less was found.
        items: int64 ``(n,)``, the item of each row.
    """
    other = found != items[:, None]
    other[other.all(1), -1] = False  # copies of an item may push it out
    kept = found[other].reshape(len(found), -1)
    return np.where(kept < 0, kept[:, :1], kept)


def _exact(unit: np.ndarray, sample: np.ndarray, count: int) -> np.ndarray:
    """Return the nearest other items of a sample, int64 ``(len(sample), count)``, in no order."""
    near = np.empty((len(sample), count), np.int64)
    step = max(1, CELLS // len(unit))
    for start in range(0, len(sample), step):
        rows = sample[start : start + step]
        cosines = unit[rows] @ unit.T
        cosines[np.arange(len(rows)), rows] = -np.inf
        near[start : start + step] = np.argpartition(cosines, -count, axis=1)[:, -count:]
    return near


def mutual(neighbors: np.ndarray) -> np.ndarray:
    """Return which of the neighbours have the item among their own, bool, shaped as ``neighbors`` (n, k)."""
    count, width = neighbors.shape
    found = np.empty((count, width), bool)
    step = max(1, CELLS // (8 * width * width))
    for start in range(0, count, step):
        block = neighbors[start : start + step]
        items = np.arange(start, start + len(block))
        found[start : start + step] = (neighbors[block] == items[:, None, None]).any(2)
    return found


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
