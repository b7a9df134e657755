"""Reciprocal rank of the first relevant item, over all orders of tied items.

Only the first group with a relevant item matters.  In a random order of its n items the first of the r
relevant ones comes W-th, which is a negative hypergeometric waiting time:

    P(W = 1) = r/n,     P(W = w + 1) = P(W = w) * (n - r - w + 1)/(n - w)

and the expected reciprocal rank is E[1/(N0 + W)].
"""

from __future__ import annotations

import numpy as np

from lshbench.metrics.groups import Bounds, harmonic_difference
from lshbench.types import RankedBlock


def reciprocal_rank(block: RankedBlock) -> Bounds:
    """Return 1 / (rank of the first relevant item), 0 for a query without a hit; its mean is the MRR."""
    some = np.flatnonzero(np.diff(block.offsets))
    first = block.offsets[:-1][some]
    before, size, relevant = block.before[first], block.size[first], block.relevant[first]
    result = Bounds(*(np.zeros(len(block)) for _ in range(3)))
    result.expected[some] = expected_reciprocal(before, size, relevant)
    result.optimistic[some] = 1.0 / (before + 1)
    result.pessimistic[some] = 1.0 / (before + size - relevant + 1)
    return result


def expected_reciprocal(before: np.ndarray, size: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Return E[1/(N0 + W)].

    Closed where it can be: 1/(N0 + 1) if all n are relevant, D(N0, N0 + n)/n if one is, and
    r/(n - r + 1) * (H(n) - H(r - 1)) if nothing stands before the group.  Otherwise the series above, whose
    terms are all positive and fall like (1 - r/n)^w; it stops when what is left can't change the last bit.

    Args:
        before, size, relevant: int64 ``(m,)``; ``1 <= relevant <= size``.
    """
    # Collapsed codes put the whole gallery into one group, the same for thousands of queries.
    cases, inverse = np.unique(np.stack([before, size, relevant]), axis=1, return_inverse=True)
    before, size, relevant = cases
    values = 1.0 / (before + 1.0)
    one = relevant == 1
    values[one] = harmonic_difference(before[one], before[one] + size[one]) / size[one]
    top = (before == 0) & ~one
    values[top] = relevant[top] / (size[top] - relevant[top] + 1.0)
    values[top] *= harmonic_difference(relevant[top] - 1, size[top])
    rest = np.flatnonzero((relevant < size) & ~one & ~top)
    values[rest] = _series(before[rest], size[rest], relevant[rest])
    return values[inverse.ravel()]


def _series(before: np.ndarray, size: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    sums = np.zeros(len(before))
    going = np.arange(len(before))
    probability = relevant / size
    done = 0
    while going.size:
        steps = done + np.arange(1, max(16, min(1024, (1 << 20) // going.size)) + 1)
        n, r, rank = size[going, None], relevant[going, None], before[going, None] + steps
        # P(W = w + 1)/P(W = w) is 0 from w = n - r + 1 on; the clipping keeps 0/0 out.
        factors = np.maximum(n - r - steps + 1, 0) / np.maximum(n - steps, 1)
        terms = np.cumprod(np.concatenate([probability[:, None], factors], axis=1), axis=1)
        sums[going] += (terms[:, :-1] / rank).sum(axis=1)
        probability, done = terms[:, -1], int(steps[-1])
        left = probability * (n[:, 0] - done) / r[:, 0] / (before[going] + done + 1)
        unfinished = left > sums[going] * 2.0**-55
        going, probability = going[unfinished], probability[unfinished]
    return sums
