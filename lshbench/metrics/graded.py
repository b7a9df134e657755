"""nDCG with graded relevance, over all orders of tied items.

With the discount d(m) = 1/log2(m + 1) of rank m and C(m) = d(1) + ... + d(m), an item worth g in a group of n ties
behind N0 items adds g (C(N0 + n) - C(N0))/n in expectation over a random order: the mean discount of the group's ranks
(McSherry and Najork 2008, section 2.4).  In the best order the items worth most come first within each group, in the
worst one they come last, those worth most at the very end.
"""

from __future__ import annotations

import numpy as np

from lshbench.metrics.groups import Bounds, query_sums
from lshbench.types import Gains


def graded_ndcg(gains: Gains, cutoff: int | None = None) -> Bounds:
    """Return nDCG@k, or nDCG of the whole ranking: the sum of discounted gains over that of a perfect ranking.

    0 for a query to which nothing is worth anything.  What an item is worth enters as it is, as in trec_eval.
    """
    owners = np.repeat(np.arange(len(gains.offsets) - 1), np.diff(gains.offsets))
    ideal_rank = np.arange(len(owners)) - gains.offsets[:-1][owners]
    longest = int(max((gains.before + gains.size).max(initial=0), ideal_rank.max(initial=0) + 1))
    limit = longest if cutoff is None else min(cutoff, longest)
    discounts = np.zeros(longest + 1)  # by rank from 0
    discounts[:limit] = 1.0 / np.log2(np.arange(2, limit + 2))
    summed = np.concatenate([[0.0], np.cumsum(discounts)])

    ranked = gains.before >= 0
    first = np.where(ranked, gains.before, 0)
    # Within a group of ties, an item's place among those of the group that are worth something, most first.
    order = np.lexsort((ideal_rank, gains.before, owners))
    new = np.ones(len(order), np.bool_)
    new[1:] = (np.diff(owners[order]) != 0) | (np.diff(gains.before[order]) != 0)
    begins = np.flatnonzero(new)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order)) - np.repeat(begins, np.diff(begins, append=len(order)))

    size = np.maximum(gains.size, 1)
    best = np.where(ranked, discounts[np.minimum(first + place, longest)], 0.0)
    worst = np.where(ranked, discounts[np.maximum(first + size - 1 - place, 0)], 0.0)
    mean = np.where(ranked, (summed[first + gains.size] - summed[first]) / size, 0.0)
    parts = (query_sums(gains.gain * part, gains.offsets) for part in (mean, best, worst))
    return Bounds(*parts).over(query_sums(gains.gain * discounts[ideal_rank], gains.offsets))
