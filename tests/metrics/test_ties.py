"""Every measure against the mean, the best and the worst over all orders that ties allow."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import rankings as brute
from hypothesis import given, settings
from hypothesis import strategies as st

from lshbench.metrics.average_precision import average_precision, precision_sums, trapezoid_precision
from lshbench.metrics.groups import Bounds, hits_within
from lshbench.metrics.measures import measure
from lshbench.metrics.precision import ndcg_at, precision_at, r_precision, recall_at
from lshbench.metrics.reciprocal_rank import reciprocal_rank

TIGHT = 1e-12

Cases = list[tuple[list[tuple[int, bool]], int]]

rankings = st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=9)
cases = st.lists(st.tuples(rankings, st.integers(0, 3)), min_size=1, max_size=5)

ADVERSARIAL: Cases = [
    ([(1, bool(i % 3)) for i in range(9)], 0),  # all tied
    ([(i % 2, False) for i in range(6)], 0),  # no relevant items at all
    ([(i % 2, False) for i in range(6)], 2),  # relevant items, none of them ranked
    ([(i % 3, True) for i in range(7)], 0),  # all relevant
    ([(0, True)], 0),
    ([(0, False)], 0),
    ([], 0),
    ([], 4),  # nothing ranked
    ([(0, False), (0, False), (0, True), (1, True), (1, False), (2, True), (2, True)], 5),
]


def assert_agrees(bounds: Bounds, expected: list[tuple[float, float, float]]) -> None:
    want = np.array(expected).T
    for part, values in zip(bounds, want, strict=True):
        np.testing.assert_allclose(part, values, rtol=0, atol=TIGHT)


def brute_force(cases: Cases, score) -> list[tuple[float, float, float]]:
    scores = []
    for ranking, missing in cases:
        total = sum(relevant for _, relevant in ranking) + missing
        scores.append(brute.over_orders(ranking, functools.partial(score, total=total)))
    return scores


def block_of(cases: Cases):
    return brute.block_of([ranking for ranking, _ in cases], [missing for _, missing in cases])


def check_all(cases: Cases) -> None:
    block = block_of(cases)

    def wanted(score) -> list[tuple[float, float, float]]:
        return brute_force(cases, score)

    assert_agrees(average_precision(block), wanted(brute.average_precision))
    assert_agrees(reciprocal_rank(block), wanted(lambda order, total: brute.reciprocal_rank(order)))
    assert_agrees(r_precision(block), wanted(lambda order, total: brute.ratio(sum(order[:total]), total)))
    trapezoid = trapezoid_precision(block, precision_sums(block)[0].expected)
    means = [mean for mean, _, _ in wanted(brute.trapezoid)]
    np.testing.assert_allclose(trapezoid, means, rtol=0, atol=TIGHT)
    for k in (1, 2, 3, 5, 9, 50):
        assert_agrees(precision_at(block, k), wanted(lambda order, total, k=k: sum(order[:k]) / k))
        assert_agrees(recall_at(block, k), wanted(lambda order, total, k=k: brute.ratio(sum(order[:k]), total)))
        assert_agrees(ndcg_at(block, k), wanted(functools.partial(brute.ndcg, cutoff=k)))
        assert_agrees(average_precision(block, k), wanted(functools.partial(brute.average_precision, cutoff=k)))


def test_every_measure_is_the_mean_best_and_worst_over_all_orders_on_adversarial_rankings() -> None:
    check_all(ADVERSARIAL)


@pytest.mark.parametrize("case", ADVERSARIAL)
def test_a_query_alone_scores_as_it_does_among_others(case) -> None:
    check_all([case])
    alone, among = measure(block_of([case])), measure(block_of([*ADVERSARIAL, case, *ADVERSARIAL]))
    for key, values in alone.items():
        assert values[0] == among[key][len(ADVERSARIAL)] or np.isnan(values[0]), key


@settings(max_examples=60, deadline=None)
@given(cases)
def test_every_measure_is_the_mean_best_and_worst_over_all_orders(cases: Cases) -> None:
    check_all(cases)


@settings(max_examples=100, deadline=None)
@given(cases)
def test_bounds_hold_and_all_values_lie_between_0_and_1(cases: Cases) -> None:
    measures = measure(block_of(cases), cutoffs=(1, 3, 20), ap_cutoffs=(2, 10))
    for key, values in measures.items():
        if key in ("candidates", "relevant") or "radius" in key:
            continue
        assert values.min() >= 0, key
        assert values.max() <= 1 + TIGHT, key
        if f"{key}_optimistic" in measures:
            assert (measures[f"{key}_pessimistic"] <= values + TIGHT).all(), key
            assert (values <= measures[f"{key}_optimistic"] + TIGHT).all(), key


@settings(max_examples=60, deadline=None)
@given(cases, st.integers(1, 5))
def test_irrelevant_items_after_all_others_change_no_measure(cases: Cases, more: int) -> None:
    extended = [(ranking + [(9, False)] * more, missing) for ranking, missing in cases]
    before, after = measure(block_of(cases)), measure(block_of(extended))
    for key, values in before.items():
        if key != "candidates" and not key.endswith("short_ranked"):
            np.testing.assert_array_equal(values, after[key], err_msg=key)


@settings(max_examples=60, deadline=None)
@given(cases, st.randoms(use_true_random=False))
def test_the_order_of_the_gallery_changes_no_expected_measure_by_a_bit(cases: Cases, random) -> None:
    shuffled = [(random.sample(ranking, len(ranking)), missing) for ranking, missing in cases]
    before, after = measure(block_of(cases)), measure(block_of(shuffled))
    for key, values in before.items():
        if not (key.endswith("/hits") and key != "AP@candidates/hits") and not key.endswith("short_last"):
            np.testing.assert_array_equal(values, after[key], err_msg=key)


@settings(max_examples=40, deadline=None)
@given(rankings)
def test_more_relevant_items_that_are_never_ranked_lower_recall_but_not_precision(ranking) -> None:
    few, many = (brute.block_of([ranking], [missing]) for missing in (1, 5))
    np.testing.assert_array_equal(precision_at(few, 3).expected, precision_at(many, 3).expected)
    assert (recall_at(many, 3).expected <= recall_at(few, 3).expected).all()
    assert (average_precision(many).expected <= average_precision(few).expected).all()


def test_a_block_without_queries_has_measures_of_length_0() -> None:
    for values in measure(brute.block_of([])).values():
        assert values.shape == (0,)


def test_hits_take_a_cutoff_for_each_query_or_several() -> None:
    block = brute.block_of([[(0, True), (0, False), (1, True)], [(0, False), (1, True), (1, True), (1, False)]])
    assert hits_within(block, np.array([1, 3])).expected.tolist() == [0.5, pytest.approx(4 / 3)]
    several = hits_within(block, np.array([[0, 1, 9], [1, 2, 4]]))
    np.testing.assert_allclose(several.expected, [[0, 0.5, 2], [0, 2 / 3, 2]])
    assert several.optimistic.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert several.pessimistic.tolist() == [[0, 0, 2], [0, 0, 2]]
