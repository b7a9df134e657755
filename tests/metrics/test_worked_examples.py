"""Each measure on rankings small enough to work out on paper."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import rankings as brute

from lshbench.metrics.average_precision import average_precision
from lshbench.metrics.groups import harmonic_difference
from lshbench.metrics.precision import ndcg_at, precision_at, r_precision, recall_at
from lshbench.metrics.radius import within_radius
from lshbench.metrics.reciprocal_rank import expected_reciprocal, reciprocal_rank

# Relevant items at ranks 1, 3 and 6 of 6; a fourth relevant item is never ranked.
PLAIN = [(0, True), (1, False), (2, True), (3, False), (4, False), (5, True)]
# Two items at distance 0, one of them relevant; then three at distance 1, two of them relevant.
TIED = [(0, False), (0, True), (1, True), (1, False), (1, True)]


def only(values: np.ndarray) -> float:
    assert values.shape == (1,)
    return float(values[0])


def test_average_precision_without_ties() -> None:
    block = brute.block_of([PLAIN], [1])
    for value in average_precision(block):
        assert only(value) == pytest.approx((1 / 1 + 2 / 3 + 3 / 6) / 4, abs=1e-15)
    assert only(average_precision(block, 3).expected) == pytest.approx((1 + 2 / 3) / 4, abs=1e-15)


def test_average_precision_with_ties() -> None:
    # Distance 0: the relevant item is first or second, 1 or 1/2.
    # Distance 1 (ranks 3, 4, 5 with one found): the pairs (3,4), (3,5), (4,5).
    first = (1 + 1 / 2) / 2
    second = ((2 / 3 + 3 / 4) + (2 / 3 + 3 / 5) + (2 / 4 + 3 / 5)) / 3
    expected, optimistic, pessimistic = average_precision(brute.block_of([TIED]))
    assert only(expected) == pytest.approx((first + second) / 3, abs=1e-15)
    assert only(optimistic) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3, abs=1e-15)
    assert only(pessimistic) == pytest.approx((1 / 2 + 2 / 4 + 3 / 5) / 3, abs=1e-15)


def test_precision_and_recall_at_a_cutoff_that_splits_a_tie() -> None:
    block = brute.block_of([TIED], [1])
    # The first 3 ranks hold one sure hit and one of three tied items, two of which are relevant.
    assert [only(value) for value in precision_at(block, 3)] == pytest.approx([(1 + 2 / 3) / 3, 2 / 3, 1 / 3])
    assert [only(value) for value in recall_at(block, 3)] == pytest.approx([(1 + 2 / 3) / 4, 2 / 4, 1 / 4])
    # R = 4: two of the three tied items are inside, at least one of them relevant.
    assert [only(value) for value in r_precision(block)] == pytest.approx([(1 + 4 / 3) / 4, 3 / 4, 2 / 4])


def test_precision_at_a_cutoff_beyond_the_gallery_still_divides_by_it() -> None:
    assert only(precision_at(brute.block_of([PLAIN]), 50).expected) == 3 / 50


def test_ndcg_of_binary_gains() -> None:
    gain = [1 / math.log2(rank + 1) for rank in range(1, 6)]
    expected, optimistic, pessimistic = ndcg_at(brute.block_of([TIED]), 4)
    ideal = sum(gain[:3])
    assert only(expected) == pytest.approx((sum(gain[:2]) / 2 + 2 / 3 * sum(gain[2:4])) / ideal)
    assert only(optimistic) == pytest.approx((gain[0] + gain[2] + gain[3]) / ideal)
    assert only(pessimistic) == pytest.approx((gain[1] + gain[3]) / ideal)


def test_reciprocal_rank_of_the_first_hit_in_a_tie() -> None:
    # Ranks 2, 3, 4 are tied, one of them relevant.
    block = brute.block_of([[(0, False), (1, False), (1, True), (1, False)]])
    expected, optimistic, pessimistic = reciprocal_rank(block)
    assert only(expected) == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 3, abs=1e-15)
    assert (only(optimistic), only(pessimistic)) == (1 / 2, 1 / 4)


def test_what_stands_within_a_radius() -> None:
    far = [(3, True), (4, False)]
    block = brute.block_of([TIED, far, []], [1, 0, 2], bits=4)
    found = within_radius(block, np.array([0, 1, 3, 9]))
    assert found.items.tolist() == [[2, 5, 5, 5], [0, 0, 1, 2], [0, 0, 0, 0]]
    assert found.hits.tolist() == [[1, 3, 3, 3], [0, 0, 1, 1], [0, 0, 0, 0]]
    assert found.precision.tolist() == [[1 / 2, 3 / 5, 3 / 5, 3 / 5], [0, 0, 1, 1 / 2], [0, 0, 0, 0]]
    assert found.recall.tolist() == [[1 / 4, 3 / 4, 3 / 4, 3 / 4], [0, 0, 1, 1], [0, 0, 0, 0]]


def test_a_radius_needs_hamming_distances() -> None:
    with pytest.raises(ValueError, match="within is None"):
        within_radius(brute.block_of([TIED]), np.array([2]))


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        (0, 0),
        (0, 1),
        (0, 64),
        (3, 65),
        (63, 64),
        (63, 70),
        (64, 65),
        (64, 5000),
        (70, 70),
        (999, 1003),
        (40_000, 50_000),
    ],
)
def test_harmonic_differences_are_right_to_the_last_bits(start: int, stop: int) -> None:
    exact = math.fsum(1 / m for m in range(start + 1, stop + 1))
    value = only(harmonic_difference(np.array([float(start)]), np.array([float(stop)])))
    assert value == pytest.approx(exact, rel=1e-14 if start < 64 else 4e-16, abs=0)


def test_small_ties_at_rank_a_million_keep_their_digits() -> None:
    # Three tied items, two relevant, after 1,279,996 irrelevant ones, and two relevant ones before: exact
    # fractions.
    before, found = 1_279_996, 2
    block = brute.block_of([[(0, True), (0, True), (1, True), (1, True), (1, False)]])
    block.before[:], block.relevant_before[:] = [0, before], [0, found]
    pairs = [(1, 2), (1, 3), (2, 3)]
    ranks = [(Fraction(3, before + first), Fraction(4, before + second)) for first, second in pairs]
    exact = (2 + sum(first + second for first, second in ranks) / 3) / 4
    assert only(average_precision(block).expected) == pytest.approx(float(exact), rel=0, abs=1e-15)


@pytest.mark.parametrize(("before", "size", "relevant"), [(0, 700, 3), (5, 400, 2), (12_345, 300, 40), (1, 2000, 5)])
def test_long_waits_for_the_first_hit_equal_exact_fractions(before: int, size: int, relevant: int) -> None:
    exact = sum(
        (
            Fraction(math.comb(size - wait, relevant - 1), math.comb(size, relevant)) / (before + wait)
            for wait in range(1, size - relevant + 2)
        ),
        Fraction(0),
    )
    value = expected_reciprocal(np.array([before]), np.array([size]), np.array([relevant]))
    assert only(value) == pytest.approx(float(exact), rel=1e-13)


def test_many_different_waits_are_summed_side_by_side() -> None:
    generator = np.random.default_rng(3)
    size = generator.integers(3, 60, 500)
    relevant = 1 + generator.integers(0, size)
    before = generator.integers(0, 40, 500)
    for n, r, start, value in zip(size, relevant, before, expected_reciprocal(before, size, relevant), strict=True):
        waits = range(1, n - r + 2)
        total = math.comb(n, r)
        want = math.fsum(math.comb(n - wait, r - 1) / total / (start + wait) for wait in waits)
        assert value == pytest.approx(want, rel=1e-13)
