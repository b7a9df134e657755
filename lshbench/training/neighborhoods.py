"""How near training items are to each other, judged by what is near them, too: what is learnt without labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lshbench.training.data import Batch, TrainingData
from lshbench.training.neighbors import CELLS, NeighborGraph, leading_components, nearest_neighbors
from lshbench.types import Progress

SHARPNESS = 3
"""Power of its cosine by which a neighbour counts: the nearest count most, so that many can be looked at."""

HALF_BYTES = 1 << 30
"""Bytes of vectors from which on they are kept in half precision."""

COLUMNS, ROWS = 64, 8192
"""Numbers of each vector that are averaged at a time, and vectors that are scaled at a time."""

INDICES = 1 << 31
"""Neighbours of all items from which on their indices have 64 bits: torch counts all neighbours in the same type."""

FEWEST = 20
"""Nearest neighbours that are looked at however few items there are, if as many are asked for."""


def neighborhoods(
    data: TrainingData, count: int, steps: Sequence[int], temperature: float, seed: int, progress: Progress
) -> Neighborhoods:
    """Return the neighbourhoods of a training part, by the leading components of its features.

    Args:
        data: the training set.
        count: nearest neighbours of each item that are looked at, at most; of few items, as :func:`fewer` says.
        steps, temperature: as for :class:`Neighborhoods`.
        seed: decides the sample that the components are learnt from.
        progress: shown while it runs.
    """
    unit = leading_components(data, seed)
    graph = NeighborGraph(nearest_neighbors(unit, fewer(count, len(unit)), progress))
    return Neighborhoods(graph, unit, steps, temperature)


def fewer(count: int, items: int) -> int:
    """Return how many neighbours to look at where ``count`` are asked for: a quarter of the square root of items.

    Classes have more items where there are more in all, but not in proportion: there are more classes, too.
    """
    return min(count, max(FEWEST, round(items**0.5 / 4)))


class Neighborhoods:
    """How near training items are, by cosines of vectors that are averaged over neighbours, at several scales at once.

    What an item's mutual neighbours have in common is what it is, and what they don't is noise: cosines of averages
    keep the order of the nearest and bring together what hangs together through others (diffusion over the graph of
    neighbours; the averages are those of weighted query expansion, Radenovic et al., arXiv 1711.02512).  The mean of
    cosines after no, some and many averagings knows the nearest items, and clusters, too.

    Args:
        graph: mutual neighbours of the items.
        unit: vectors of length 1, float ``(n, d)``, on the device to compute on.
        steps: ascending numbers, of which each says how often vectors are averaged for cosines of its own; 0: not at
            all.
        temperature: of the cosines in the softmax.
    """

    def __init__(self, graph: NeighborGraph, unit: Tensor, steps: Sequence[int], temperature: float) -> None:
        self.graph, self.temperature, self.dtype = graph, temperature, unit.dtype
        self.unit = _averaged(unit, graph, steps)

    def relevance(self, first: np.ndarray, second: np.ndarray) -> Tensor:
        """Return how relevant items of ``second`` are to each of ``first``: ``(n, m)``, whose rows add up to 1."""
        rows, others = (torch.from_numpy(items).to(self.unit.device) for items in (first, second))
        cosines = self.unit[rows].to(self.dtype) @ self.unit[others].to(self.dtype).T
        return (cosines / self.temperature).softmax(1)

    def partners(self, batch: Batch, data: TrainingData) -> tuple[Tensor, Tensor]:
        """Return features of a neighbour of each item of a batch, and how relevant these are to the items."""
        rows = self.graph.draw(batch.rows, batch.generator)
        return data.take(rows)[0], self.relevance(batch.rows, rows)


def _averaged(unit: Tensor, graph: NeighborGraph, steps: Sequence[int]) -> Tensor:
    """Return vectors whose products are the means of cosines after so many averagings, ``(n, len(steps) * d)``."""
    items, dim = unit.shape
    large = items * len(steps) * dim * unit.itemsize > HALF_BYTES
    averages = torch.empty(items, len(steps), dim, dtype=torch.float16 if large else unit.dtype, device=unit.device)
    partners = torch.from_numpy(graph.partners).to(unit.device)
    weights = _partner_weights(unit, partners)
    total = 1 + weights.sum(1, keepdim=True)
    short = partners.numel() < INDICES
    partners = partners.to(torch.int32 if short else torch.int64, copy=True).clamp_(min=0)
    squares = unit.new_zeros(items, len(steps), 1)
    for start in range(0, dim, COLUMNS):  # some columns at a time, as copies of all take memory
        columns = slice(start, start + COLUMNS)
        part, done = unit[:, columns].contiguous(), 0
        for scale, step in enumerate(steps):
            for _ in range(step - done):
                # A sum over bags gathers no copy of each item's neighbours.
                sums = functional.embedding_bag(partners, part, per_sample_weights=weights, mode="sum")
                part = sums.add_(part).div_(total)
            done = step
            averages[:, scale, columns] = part
            squares[:, scale, 0] += part.square().sum(1)
    lengths = squares.sqrt_().clamp_(min=1e-12).mul_(len(steps) ** 0.5)
    for rows in range(0, items, ROWS):  # of another type, torch divides a copy
        averages[rows : rows + ROWS] /= lengths[rows : rows + ROWS]
    return averages.flatten(1)


def _partner_weights(unit: Tensor, partners: Tensor) -> Tensor:
    """Return by how much each mutual neighbour counts in an average, ``(n, k)``; the item itself counts as 1."""
    weights = torch.empty(partners.shape, dtype=unit.dtype, device=unit.device)
    step = max(1, CELLS // (partners.shape[1] * unit.shape[1]))
    for start in range(0, len(unit), step):
        rows = slice(start, start + step)
        cosines = (unit[partners[rows]] @ unit[rows, :, None]).squeeze(2)
        weights[rows] = cosines.clamp(min=0) ** SHARPNESS
    return weights.masked_fill(partners < 0, 0)
