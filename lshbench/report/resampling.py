"""Bootstrap intervals and sign-flip tests of many configurations at once.

The formulas are those of :mod:`lshbench.metrics.significance`.  Here one set of draws serves all configurations that
answered equally many queries, so that a report of hundreds of runs takes a few matrix products.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lshbench.metrics.significance import EXACT_LIMIT, Interval, PermutationTest, paired_permutation_test

CELLS = 1 << 21
"""Elements of a temporary: bounds memory whatever the number of queries and resamples."""


def crossed_intervals(values: Sequence[np.ndarray], *, level: float, resamples: int, seed: int) -> list[Interval]:
    """Return the mean and percentile bootstrap interval of several configurations, seeds and queries crossed.

    Each resample draws queries with replacement, once for all configurations, and seeds for each of them.

    Args:
        values: float64 ``(seeds, q)`` each, with the same q.
        level: coverage, between 0 and 1.
        resamples: how often queries and seeds are drawn.
        seed: of the draws: queries by ``default_rng(seed)``, in one ``integers`` call a block; seeds by
            ``default_rng([seed, seeds])``, so that equally many seeds are drawn alike.
    """
    queries = values[0].shape[1]
    columns = np.ascontiguousarray(np.concatenate(values).T)
    means = np.empty((resamples, columns.shape[1]))
    generator = np.random.default_rng(seed)
    step = max(1, CELLS // queries)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn = generator.integers(queries, size=(count, queries)) + queries * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * queries).reshape(count, queries)
        means[start : start + count] = times @ columns / queries
    intervals, first = [], 0
    for part in values:
        seeds = len(part)
        weights = np.random.default_rng([seed, seeds]).multinomial(seeds, np.full(seeds, 1 / seeds), resamples) / seeds
        drawn_means = (means[:, first : first + seeds] * weights).sum(axis=1)
        low, high = np.quantile(drawn_means, [(1 - level) / 2, (1 + level) / 2])
        intervals.append(Interval(float(part.mean()), float(low), float(high), level))
        first += seeds
    return intervals


def sign_flip_tests(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], *, resamples: int, seed: int
) -> list[PermutationTest]:
    """Return the paired two-sided sign-flip test of several pairs of configurations, query by query.

    Few moving queries have all their patterns counted; above, all pairs of one length share the random patterns, which
    are valid for each, and an array that is in many pairs is multiplied by them once.

    Args:
        pairs: values of two configurations each, float64 ``(q,)``.
        resamples: random sign patterns.
        seed: of the patterns: ``default_rng(seed).bytes``, a bit a query, most significant bit first.
    """
    tests: list[PermutationTest | None] = [None] * len(pairs)
    shared: dict[int, list[int]] = {}
    for place, (one, other) in enumerate(pairs):
        if np.count_nonzero(one != other) <= EXACT_LIMIT:
            tests[place] = paired_permutation_test(one, other)
        else:
            shared.setdefault(len(one), []).append(place)
    for length, places in shared.items():
        rows = {id(side): side for place in places for side in pairs[place]}
        numbers = dict(zip(rows, range(len(rows)), strict=True))
        first, second = np.array([[numbers[id(side)] for side in pairs[place]] for place in places]).T
        counts = _extreme(np.stack(list(rows.values())), first, second, resamples, seed)
        for place, count in zip(places, counts.tolist(), strict=True):
            one, other = pairs[place]
            tests[place] = PermutationTest(float((one - other).mean()), (1 + count) / (1 + resamples), False, length)
    return [test for test in tests if test is not None]


def _extreme(values: np.ndarray, first: np.ndarray, second: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Return how many sign patterns give a sum at least as far from 0 as the true one, int64 ``(pairs,)``.

    Args:
        values: float64 ``(configurations, q)``.
        first, second: int64 ``(pairs,)``, rows of ``values``, whose differences change their signs.
        resamples, seed: of the patterns.
    """
    length, totals = values.shape[1], values.sum(axis=1)
    # Sums of one pattern differ in their last bits by the order of adding: such patterns are ties.
    sizes = np.abs(values).sum(axis=1)
    thresholds = np.abs(totals[first] - totals[second]) - 1e-12 * (sizes[first] + sizes[second])
    generator = np.random.default_rng(seed)
    counts = np.zeros(len(first), np.int64)
    step, width = max(1, CELLS // length), -(-length // 8)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        packed = np.frombuffer(generator.bytes(count * width), np.uint8).reshape(count, width)
        flipped = np.unpackbits(packed, axis=1, count=length).astype(np.float64)
        # A sum of differences is a difference of sums: patterns meet each configuration, not each pair.
        sums = totals[:, None] - 2.0 * (values @ flipped.T)
        for begin in range(0, len(first), block := max(1, CELLS // count)):
            part = slice(begin, begin + block)
            far = np.abs(sums[first[part]] - sums[second[part]])
            counts[part] += (far >= thresholds[part, None]).sum(axis=1)
    return counts
