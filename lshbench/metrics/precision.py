"""Measures at a rank: P@k, recall@k, R-precision and nDCG@k, over all orders of tied items.

All follow from how many relevant items stand within the first ranks
(:func:`lshbench.metrics.groups.hits_within`), except nDCG, which weighs ranks.
"""

from __future__ import annotations

import numpy as np

from lshbench.metrics.groups import Bounds, hits_within, leading_groups, query_sums
from lshbench.types import RankedBlock


def precision_at(block: RankedBlock, cutoff: int) -> Bounds:
    """Return P@k: hits within the first k ranks, divided by k even where fewer items were ranked or exist."""
    return hits_within(block, cutoff).over(float(cutoff))


def recall_at(block: RankedBlock, cutoff: int) -> Bounds:
    """Return recall@k: hits within the first k ranks, divided by R."""
    return hits_within(block, cutoff).over(block.total_relevant)


def r_precision(block: RankedBlock) -> Bounds:
    """Return R-precision: hits within the first R ranks, divided by R, where R is each query's own."""
    return hits_within(block, block.total_relevant).over(block.total_relevant)


def ndcg_at(block: RankedBlock, cutoff: int) -> Bounds:
    """Return nDCG@k with binary gains and the discount 1/log2(rank + 1).

    With C(m) = the sum of the discounts of ranks 1 to m, N1 = N0 + n and all ranks cut at k (McSherry &
    Najork 2008, section 2.4, for binary gains):

        expected     sum_t  r/n * (C(N1) - C(N0))
        optimistic   sum_t  C(N0 + r) - C(N0)
        pessimistic  sum_t  C(N1) - C(N1 - r)

    divided by C(min(R, k)), the gain of a perfect ranking.
    """
    head = leading_groups(block, cutoff)
    ideal = np.minimum(block.total_relevant, cutoff)
    end = np.minimum(head.before + head.size, cutoff)
    length = int(max(end.max(initial=0), ideal.max(initial=0)))
    gain = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2, length + 2)))])
    before = gain[head.before]
    # Ranks beyond the cut-off give nothing: the table is read at the cut-off instead.
    first = np.minimum(head.before + head.relevant, cutoff)
    last = np.minimum(head.before + head.size - head.relevant, cutoff)
    return Bounds(
        query_sums(head.relevant / head.size * (gain[end] - before), head.offsets),
        query_sums(gain[first] - before, head.offsets),
        query_sums(gain[end] - gain[last], head.offsets),
    ).over(gain[ideal])
