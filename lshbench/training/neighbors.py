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
CELL_ITEMS, PROBES = 100, 192
"""Items in a cell of the index that takes over then, and cells that the items of each are looked for in."""
TRAINING_ITEMS, CENTRE_ROUNDS = 20, 5
"""Items that each cell's centre is learnt from, and how often it is moved."""
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
    """Return what cosines of the training part's items are taken of, ``(n, c)`` of length 1, on the device.

    The leading principal components of the standardised features hold nearly all of their cosines at a fifth of the
    work.
    """
    standardise = Standardise(data.inputs)
    standardise.learn(data.source)
    components = Components(data.inputs, min(COMPONENTS, data.inputs), 1.0)
    components.learn(standardise, data.source, seed)
    rotate = nn.Sequential(standardise, components).to(data.device)
    unit = torch.empty(len(data), components.directions.shape[1], device=data.device)
    for rows in np.array_split(np.arange(len(data)), max(1, len(data) // 8192)):
        unit[rows[0] : rows[-1] + 1] = functional.normalize(rotate(data.take(rows)[0]))
    return unit


def nearest_neighbors(unit: Tensor, count: int, progress: Progress) -> np.ndarray:
    """Return the nearest other items of each item by cosine, nearest first, int64 ``(n, count)``.

    Exact up to :data:`EXACT_ITEMS`; for more, most of the nearest, by an index of cells that is searched on the CPU.
    How many of a sample's nearest ones it finds is logged.

    Args:
        unit: vectors of length 1, ``(n, d)``, on the device to compute on.
        count: neighbours of each item; at most n - 1 are returned.
        progress: shown while it runs.
    """
    exact = len(unit) <= EXACT_ITEMS

    def search() -> dict[str, np.ndarray]:
        return {"neighbors": (_nearest_neighbors if exact else _indexed_neighbors)(unit, count, progress)}

    compared = len(unit) if exact else CELL_ITEMS * PROBES
    operations = len(unit) * compared * unit.shape[1]
    cells = () if exact else ("by cells", CELL_ITEMS, PROBES, TRAINING_ITEMS, CENTRE_ROUNDS)
    setting = (count, str(unit.device), torch.__version__, *cells)
    return once("neighbors", {"vectors": unit.cpu().numpy()}, operations, search, *setting)["neighbors"]


def _nearest_neighbors(unit: Tensor, count: int, progress: Progress) -> np.ndarray:
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


def _indexed_neighbors(unit: Tensor, count: int, progress: Progress) -> np.ndarray:
    """Return most of the nearest neighbours: those in the cells around an item's, whose centres are learnt.

    All items of a cell look into the same cells, so that one matrix product compares them all.
    """
    items, on_cpu = len(unit), unit.cpu().numpy()
    count = min(count, items - 1)
    result = np.empty((items, count), np.int64)
    centres = _centres(on_cpu, progress)
    cell, near_cells = _cells(on_cpu, centres, progress)
    order = np.argsort(cell, kind="stable")
    starts = np.searchsorted(cell[order], np.arange(len(near_cells) + 1))
    unit = unit[torch.from_numpy(order).to(unit.device)]
    with progress("nearest neighbours", total=items, unit="items") as advance:
        for number, near in enumerate(near_cells):
            here = range(starts[number], starts[number + 1])
            if not here:
                continue
            around = [range(starts[other], starts[other + 1]) for other in (number, *near[near != number])]
            found = _nearest_of(unit, here, around, count)
            result[order[here.start : here.stop]] = order[found]
            advance(len(here))
    _log_found(on_cpu, result)
    return result


def _centres(unit: np.ndarray, progress: Progress) -> np.ndarray:
    """Return the centres of cells, of length 1, float32 ``(cells, d)``."""
    import faiss

    items, dim = unit.shape
    points = {"min_points_per_centroid": 1, "max_points_per_centroid": TRAINING_ITEMS}
    centres: np.ndarray | None = None
    with progress("centres of cells", total=CENTRE_ROUNDS, unit="rounds") as advance:
        for _ in range(CENTRE_ROUNDS):  # faiss tells nothing before its last round
            kmeans = faiss.Kmeans(dim, max(1, items // CELL_ITEMS), niter=1, spherical=True, **points)
            kmeans.train(unit, init_centroids=centres)
            centres = np.array(kmeans.centroids)
            advance(1)
    assert centres is not None
    return centres


def _cells(unit: np.ndarray, centres: np.ndarray, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
    """Return the cell of each item, int64 ``(n,)``, and the cells around each cell, int64 ``(cells, p)``.

    They hold what an item has to be compared with: at least :data:`PROBES` cells, or all.
    """
    import faiss

    index = faiss.IndexFlatIP(unit.shape[1])
    index.add(centres)
    cell = np.empty(len(unit), np.int64)
    with progress("cells of items", total=len(unit), unit="items") as advance:
        for start in range(0, len(unit), SEARCHED_ITEMS):
            block = unit[start : start + SEARCHED_ITEMS]
            cell[start : start + len(block)] = index.search(block, 1)[1][:, 0]
            advance(len(block))
    return cell, index.search(centres, min(PROBES, len(centres)))[1]


def _nearest_of(unit: Tensor, here: range, around: list[range], count: int) -> np.ndarray:
    """Return the nearest others of some items among those around them, nearest first, int64 ``(len(here), count)``.

    Args:
        unit: ``(n, d)``, of length 1.
        here: the items.
        around: ranges of items, the first of them ``here``.
        count: neighbours of each; the nearest stands in place of those that are not there.
    """
    places = np.concatenate([np.arange(part.start, part.stop) for part in around])
    if len(places) == 1:  # alone there: any other will do
        return np.full((1, count), (here.start + 1) % len(unit))
    compared = torch.cat([unit[part.start : part.stop] for part in around])
    kept = min(count, len(places) - 1)
    found = np.empty((len(here), count), np.int64)
    step = max(1, CELLS // len(places))
    for start in range(0, len(here), step):
        cosines = compared[start : min(start + step, len(here))] @ compared.T
        rows = torch.arange(len(cosines), device=unit.device)
        cosines[rows, rows + start] = -torch.inf
        nearest = places[cosines.topk(kept, dim=1).indices.cpu().numpy()]
        found[start : start + len(cosines), :kept] = nearest
        found[start : start + len(cosines), kept:] = nearest[:, :1]
    return found


def _log_found(unit: np.ndarray, result: np.ndarray) -> None:
    """Say how many of the nearest neighbours of a sample were found."""
    items, count = result.shape
    sample = np.random.default_rng(0).choice(items, min(CHECKED_ITEMS, items), replace=False)
    share = np.mean(
        [len(np.intersect1d(result[i], near)) for i, near in zip(sample, _exact(unit, sample, count), strict=True)]
    )
    log.info(
        "neighbours of %s items come from an index, which finds %.1f %% of the nearest %d (of %d items)",
        f"{items:,}", 100 * share / count, count, len(sample),
    )  # fmt: skip


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
    items, width = neighbors.shape
    lower = np.minimum(np.arange(items)[:, None], neighbors).ravel()
    found = np.empty(items * width, bool)
    step = max(1, CELLS // (4 * width))
    for start in range(0, items, step):
        places = np.flatnonzero((start <= lower) & (lower < start + step))
        found[places] = _both_ways(places // width, neighbors.ravel()[places], items)
    return found.reshape(items, width)


def _both_ways(first: np.ndarray, second: np.ndarray, items: int) -> np.ndarray:
    """Return of which ordered pairs the reverse is there, too, bool ``(m,)``; pairs may repeat."""
    # Both directions of a pair stand together in order, told apart by the last bit.
    keys = 2 * (np.minimum(first, second) * items + np.maximum(first, second)) + (first > second)
    order = np.argsort(keys)
    keys = keys[order]
    starts = np.flatnonzero(np.diff(keys >> 1, prepend=-1))
    counts = np.diff(starts, append=len(keys))
    both = np.empty(len(keys), bool)
    both[order] = np.repeat(keys[starts] % 2 != keys[starts + counts - 1] % 2, counts)
    return both


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
