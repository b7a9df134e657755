"""Tests of all pairs of configurations, and the one rule by which one of them is the winner.

A winner is better than every other with every seed that both have, and each of these differences is significant among
all pairs that are compared with each other (paired sign-flip tests over queries, Holm's correction).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

import numpy as np

from lshbench.errors import UsageError
from lshbench.metrics.significance import PermutationTest, holm
from lshbench.report.repeats import Repeat, paired_values
from lshbench.report.resampling import sign_flip_tests

SIGNIFICANT = 0.05
"""A difference is called significant below this p-value, adjusted for all pairs that are compared."""


@dataclass(frozen=True)
class Side:
    """A configuration's values of one measure, as pairing takes them.

    Attributes:
        name: of the configuration.
        repeats: its per-query values, one a seed.
    """

    name: str
    repeats: Sequence[Repeat]

    @cached_property
    def averaged(self) -> np.ndarray:
        """The values averaged over the seeds, where all answered the same queries; float64 ``(q,)``."""
        return np.mean([repeat.values for repeat in self.repeats], axis=0)

    def seed_means(self) -> dict[int, float]:
        """Return the mean with each seed."""
        return {repeat.seed: float(repeat.values.mean()) for repeat in self.repeats}


@dataclass(frozen=True)
class Pair:
    """Test of two configurations, paired by query.

    Attributes:
        first, second: names of the configurations.
        test: the sign-flip test of first minus second.
        adjusted: its p-value by Holm's method, over all pairs that were compared.
        seeds: ``all`` where each query's values are averaged over the seeds, or the common seeds, each with queries of
            its own.
        every_seed: whether the difference has the same sign with every seed that both have.
    """

    first: str
    second: str
    test: PermutationTest
    adjusted: float
    seeds: str
    every_seed: bool

    @property
    def significant(self) -> bool:
        """Whether the difference is more than chance."""
        return self.adjusted < SIGNIFICANT

    @property
    def better(self) -> str | None:
        """The name of the one that is greater with every seed, and significantly; None where neither is."""
        if not (self.significant and self.every_seed):
            return None
        return self.first if self.test.difference > 0 else self.second


@dataclass(frozen=True)
class Best:
    """The configuration with the highest mean among those of one supervision.

    Attributes:
        supervision: of all that it is compared with.
        name: of the configuration.
        runner_up: the next one's name; None where there is no other.
        beaten, others: than how many of the others it is better, with every seed and significantly, and how many there
            are; where they are equal and not 0, it is the winner.
    """

    supervision: str
    name: str
    runner_up: str | None
    beaten: int
    others: int


def tested_pairs(sides: Sequence[Side], *, resamples: int, seed: int) -> tuple[list[Pair], list[str]]:
    """Return the tests of every pair, and why some could not be tested.

    Args:
        sides: with names of their own.
        resamples: random sign patterns of a test.
        seed: of these.
    """
    compared, untested = [], []
    for one, other in combinations(sides, 2):
        try:
            compared.append((one, other, *paired_values(one, other)))
        except UsageError as error:
            untested.append(str(error))
    tests = sign_flip_tests([(left, right) for _, _, left, right, _ in compared], resamples=resamples, seed=seed)
    adjusted = holm(np.array([test.p_value for test in tests]))
    pairs = [
        Pair(one.name, other.name, test, float(p_value), seeds, _every_seed(one, other))
        for (one, other, _, _, seeds), test, p_value in zip(compared, tests, adjusted, strict=True)
    ]
    return pairs, untested


def _every_seed(one: Side, other: Side) -> bool:
    first, second = one.seed_means(), other.seed_means()
    common = first.keys() & second.keys()
    if common:
        return len({np.sign(first[seed] - second[seed]) for seed in common}) == 1
    return min(first.values()) > max(second.values()) or max(first.values()) < min(second.values())


def best_of(names: Sequence[str], pairs: Sequence[Pair], supervision: str) -> Best:
    """Return the first of some names beside the others.

    Args:
        names: by their means, best first.
        pairs: tests of them, and perhaps of others.
        supervision: that they have in common.
    """
    first, *others = names
    better = [{pair.first, pair.second} for pair in pairs if pair.better == first]
    beaten = sum({first, other} in better for other in others)
    return Best(supervision, first, others[0] if others else None, beaten, len(others))


def winner_of(sides: Sequence[Side], *, highest: bool, resamples: int, seed: int) -> str | None:
    """Return the name of the side that is better than every other, or None where there is none, or no other.

    Args:
        sides: with names of their own.
        highest: whether more is better.
        resamples, seed: of the tests, as in :func:`tested_pairs`.
    """
    if len(sides) < 2:
        return None
    signed = sides if highest else [Side(side.name, [_negated(one) for one in side.repeats]) for side in sides]
    means = {side.name: np.mean(list(side.seed_means().values())) for side in signed}
    pairs, _ = tested_pairs(signed, resamples=resamples, seed=seed)
    best = best_of(sorted(means, key=lambda name: -means[name]), pairs, "")
    return best.name if best.beaten == best.others else None


def _negated(repeat: Repeat) -> Repeat:
    return replace(repeat, values=-repeat.values)
