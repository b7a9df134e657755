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


def sign_flip_tests(differences: Sequence[np.ndarray], *, resamples: int, seed: int) -> list[PermutationTest]:
    """Return the paired two-sided sign-flip test of several differences, query by query.

    Few moving queries have all their patterns counted; above, all differences of one length share the random
    patterns, which are valid for each.

    Args:
        differences: float64 ``(q,)`` each.
        resamples: random sign patterns.
        seed: of the patterns: ``default_rng(seed).bytes``, a bit a query, most significant bit first.
    """
    tests: list[PermutationTest | None] = [None] * len(differences)
    shared: dict[int, list[int]] = {}
    for place, difference in enumerate(differences):
        if np.count_nonzero(difference) <= EXACT_LIMIT:
            tests[place] = paired_permutation_test(difference, np.zeros_like(difference))
        else:
            shared.setdefault(len(difference), []).append(place)
    for length, places in shared.items():
        columns = np.stack([differences[place] for place in places], axis=1)
        counts = _extreme(columns, resamples, seed)
        for place, count in zip(places, counts.tolist(), strict=True):
            mean = float(differences[place].mean())
            tests[place] = PermutationTest(mean, (1 + count) / (1 + resamples), False, length)
    return [test for test in tests if test is not None]


def _extreme(columns: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Return how many sign patterns give a sum at least as far from 0 as the true one, int64 ``(columns,)``."""
    length = len(columns)
    total = columns.sum(axis=0)
    # Sums of one pattern differ in their last bits by the order of adding: such patterns are ties.
    threshold = np.abs(total) - 1e-12 * np.abs(columns).sum(axis=0)
    generator = np.random.default_rng(seed)
    counts = np.zeros(columns.shape[1], np.int64)
    step, width = max(1, CELLS // length), -(-length // 8)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        packed = np.frombuffer(generator.bytes(count * width), np.uint8).reshape(count, width)
        flipped = np.unpackbits(packed, axis=1, count=length).astype(np.float64)
        counts += (np.abs(total - 2.0 * (flipped @ columns)) >= threshold).sum(axis=0)
    return counts
