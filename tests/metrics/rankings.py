"""Small rankings as plain lists, the blocks they make, and measures straight from their textbook formulae.

A ranking is a list of ``(distance, relevant)`` in gallery order.  An order is a list of 0 and 1, first rank
first.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from lshbench.types import RankedBlock

Ranking = Sequence[tuple[float, bool]]
Order = Sequence[int]


def block_of(
    rankings: Sequence[Ranking],
    missing: Sequence[int] | None = None,
    *,
    positions: bool = True,
    bits: int | None = None,
) -> RankedBlock:
    """Build a block; ``missing`` counts the relevant items that each query never ranked."""
    missing = missing or [0] * len(rankings)
    groups: list[tuple[int, int, int, int]] = []
    offsets, position_offsets, places, within = [0], [0], [], []
    for ranking in rankings:
        stable = sorted(ranking, key=lambda item: item[0])
        before = found = 0
        for _, tied in itertools.groupby(stable, key=lambda item: item[0]):
            marks = [relevant for _, relevant in tied]
            if any(marks):
                groups.append((before, found, len(marks), sum(marks)))
            before, found = before + len(marks), found + sum(marks)
        offsets.append(len(groups))
        places += [rank for rank, (_, relevant) in enumerate(stable, 1) if relevant]
        position_offsets.append(len(places))
        if bits is not None:
            within.append([sum(distance <= radius for distance, _ in ranking) for radius in range(bits + 1)])
    columns = np.array(groups, np.int64).reshape(-1, 4).T.copy()
    return RankedBlock(
        offsets=np.array(offsets, np.int64),
        before=columns[0],
        relevant_before=columns[1],
        size=columns[2],
        relevant=columns[3],
        total_relevant=np.array(
            [sum(mark for _, mark in ranking) + more for ranking, more in zip(rankings, missing, strict=True)],
            np.int64,
        ),
        ranked=np.array([len(ranking) for ranking in rankings], np.int64),
        positions=np.array(places, np.int32) if positions else None,
        position_offsets=np.array(position_offsets, np.int64) if positions else None,
        within=np.array(within, np.int64).reshape(len(rankings), bits + 1) if bits is not None else None,
    )


def orders(ranking: Ranking) -> Iterator[list[int]]:
    """Yield every distinct order of relevance that ties allow; all are equally likely."""
    groups = []
    for _, tied in itertools.groupby(sorted(ranking, key=lambda item: item[0]), key=lambda item: item[0]):
        marks = [relevant for _, relevant in tied]
        patterns = []
        for places in itertools.combinations(range(len(marks)), sum(marks)):
            patterns.append([int(place in places) for place in range(len(marks))])
        groups.append(patterns)
    for parts in itertools.product(*groups):
        yield list(itertools.chain.from_iterable(parts))


def over_orders(ranking: Ranking, score: Callable[[Order], float]) -> tuple[float, float, float]:
    """Return the mean, the highest and the lowest score over all orders."""
    scores = [score(order) for order in orders(ranking)]
    return math.fsum(scores) / len(scores), max(scores), min(scores)


def stable_order(ranking: Ranking) -> list[int]:
    return [int(relevant) for _, relevant in sorted(ranking, key=lambda item: item[0])]


def precisions(order: Order, cutoff: int | None = None) -> list[float]:
    """Return the precision at each relevant item of the first ranks."""
    head = order[:cutoff]
    return [sum(head[: rank + 1]) / (rank + 1) for rank, mark in enumerate(head) if mark]


def ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else 0.0


def average_precision(order: Order, total: int, cutoff: int | None = None) -> float:
    return ratio(math.fsum(precisions(order, cutoff)), total)


def ndcg(order: Order, total: int, cutoff: int) -> float:
    gain = math.fsum(mark / math.log2(rank + 1) for rank, mark in enumerate(order[:cutoff], 1))
    ideal = math.fsum(1 / math.log2(rank + 1) for rank in range(1, min(total, cutoff) + 1))
    return ratio(gain, ideal)


def reciprocal_rank(order: Order) -> float:
    return 1 / (list(order).index(1) + 1) if any(order) else 0.0


def trapezoid(order: Order, total: int) -> float:
    """Follow the published loop: mean of the precision before and at each relevant item, in steps of
    recall."""
    area, found = 0.0, 0
    for rank, mark in enumerate(order):
        if mark:
            before = found / rank if rank else 1.0
            area += (before + (found + 1) / (rank + 1)) / 2 / total
            found += 1
    return area
