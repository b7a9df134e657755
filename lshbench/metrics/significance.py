"""Significance of figures and of differences between runs: bootstrap, paired permutation test, Holm's correction.

Per-query values go in.  Queries are what is drawn anew: an interval says how far the mean would move with other queries
like these.  Intervals over seeds draw the seeds anew as well, and say how far a repeated experiment would move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CELLS = 1 << 21
"""Elements of a temporary: bounds memory whatever the number of queries and resamples."""

EXACT_LIMIT = 18
"""Up to this many differing queries, all 2**n sign patterns are counted instead of sampled ones."""


@dataclass(frozen=True)
class Interval:
    """A mean and its percentile bootstrap interval."""

    mean: float
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class PermutationTest:
    """A paired two-sided sign-flip test.

    Attributes:
        difference: mean of the first minus mean of the second.
        p_value: share of sign patterns with a mean difference at least as far from 0; never 0.
        exact: whether all patterns were counted.
        pairs: how many pairs were compared.
    """

    difference: float
    p_value: float
    exact: bool
    pairs: int


def bootstrap_interval(
    values: np.ndarray | Sequence[np.ndarray], *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Return the mean over seeds and queries and its percentile bootstrap interval (Efron & Tibshirani 1993).

    Each resample draws seeds with replacement, then queries.  Where all seeds answer the same queries (an array), seeds
    and queries are crossed, and one draw of queries serves all seeds of the resample: drawing queries afresh for every
    seed would average the luck of the queries away, and give too short an interval.  Where every seed has queries of
    its own (a sequence of arrays), queries are nested in seeds and drawn for each.  With few seeds the interval is
    optimistic, as every percentile bootstrap is.

    Args:
        values: float ``(seeds, q)``, or one float array ``(q_i,)`` for each seed.
        level: coverage, between 0 and 1.
        resamples: how often seeds and queries are drawn, with replacement.
        seed: of the draws.
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level}: expected a number between 0 and 1")
    if resamples < 1:
        raise ValueError(f"resamples={resamples}: expected at least 1")
    generator = np.random.default_rng(seed)
    if isinstance(values, np.ndarray):
        if values.ndim != 2 or not values.size:
            raise ValueError(f"values of shape {values.shape}: expected (seeds, queries), at least one of each")
        means = _crossed_means(values, resamples, generator)
        centre = float(values.mean())
    else:
        if not values or not all(len(part) for part in values):
            raise ValueError("expected at least one seed, and at least one query for each")
        means = _nested_means(values, resamples, generator)
        centre = float(np.mean([part.mean() for part in values]))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(centre, float(low), float(high), level)


def _crossed_means(values: np.ndarray, resamples: int, generator: np.random.Generator) -> np.ndarray:
    seeds, queries = values.shape
    columns = np.ascontiguousarray(values.T)
    means = np.empty(resamples)
    step = max(1, CELLS // queries)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        weights = generator.multinomial(seeds, np.full(seeds, 1 / seeds), count) / seeds
        averages = columns @ weights.T  # (queries, count): each query's mean over the seeds drawn
        drawn = generator.integers(queries, size=(queries, count))
        means[start : start + count] = np.take_along_axis(averages, drawn, axis=0).mean(axis=0)
    return means


def _nested_means(values: Sequence[np.ndarray], resamples: int, generator: np.random.Generator) -> np.ndarray:
    seeds = len(values)
    weights = generator.multinomial(seeds, np.full(seeds, 1 / seeds), resamples)
    sums = np.zeros(resamples)
    for part, times in zip(values, weights.T, strict=True):
        # A seed drawn twice has its queries drawn twice, independently.
        owners = np.repeat(np.arange(resamples), times)
        step = max(1, CELLS // len(part))
        for start in range(0, len(owners), step):
            rows = owners[start : start + step]
            drawn = part[generator.integers(len(part), size=(len(rows), len(part)))].mean(axis=1)
            sums += np.bincount(rows, drawn, resamples)
    return sums / seeds


def paired_permutation_test(
    first: np.ndarray, second: np.ndarray, *, resamples: int = 10_000, seed: int = 0
) -> PermutationTest:
    """Test whether two runs differ in the mean, query by query (two-sided sign-flip test, Fisher 1935).

    If they don't, each query's difference is as likely to be of the opposite sign.  Up to :data:`EXACT_LIMIT`
    queries that differ at all, every sign pattern is counted; above, ``resamples`` random ones, and the
    p-value is (1 + count)/(1 + resamples), which is valid (Phipson & Smyth 2010).  Signs are flipped for
    queries: with runs fixed, the test speaks of other queries, not of other seeds.

    Args:
        first, second: float ``(q,)``, the same queries in the same order, at least one.
        resamples: random sign patterns.
        seed: of the patterns.
    """
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"values of shapes {first.shape} and {second.shape}: expected one value a query, paired")
    differences = np.asarray(first, np.float64) - second
    mean = float(differences.mean())
    moving = differences[differences != 0]  # a difference of 0 has no sign to flip
    if not len(moving):
        return PermutationTest(mean, 1.0, True, len(first))
    # Sums of one pattern differ in their last bits by the order of adding: such patterns are ties.
    threshold = abs(float(moving.sum())) - 1e-12 * float(np.abs(moving).sum())
    if len(moving) <= EXACT_LIMIT:
        sums = moving[:1]  # the other sign of the first mirrors every pattern, and a two-sided count
        for difference in moving[1:]:
            sums = np.concatenate([sums + difference, sums - difference])
        return PermutationTest(mean, float(np.mean(np.abs(sums) >= threshold)), True, len(first))
    generator = np.random.default_rng(seed)
    extreme = 0
    step = max(1, CELLS // len(moving))
    width = -(-len(moving) // 8)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        packed = np.frombuffer(generator.bytes(count * width), np.uint8).reshape(count, width)
        flipped = np.unpackbits(packed, axis=1, count=len(moving))
        sums = moving.sum() - 2.0 * (flipped @ moving)
        extreme += int((np.abs(sums) >= threshold).sum())
    return PermutationTest(mean, (1 + extreme) / (1 + resamples), False, len(first))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return p-values adjusted for many comparisons by Holm's step-down method (Holm 1979).

    The i-th smallest of m (from 0) is multiplied by m - i; none may be smaller than one before it, or exceed 1.  The
    chance of any false claim among all with an adjusted p-value below a level is then below that level.

    Args:
        p_values: float ``(m,)``.
    """
    order = np.argsort(p_values, kind="stable")
    scaled = p_values[order] * (len(p_values) - np.arange(len(p_values)))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted
