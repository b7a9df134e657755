"""Curves over recall and rank, counts of distances, and figures within each radius."""

from __future__ import annotations

import numpy as np
import pytest
import rankings as brute
from hypothesis import given, settings
from hypothesis import strategies as st

from lshbench.metrics.curves import CurveAccumulator, interpolated_precision, log_spaced_ranks, precision_at_ranks
from lshbench.metrics.precision import precision_at
from lshbench.metrics.radius import within_radius

distinct = st.lists(st.booleans(), max_size=12)


def untied(marks) -> list[tuple[int, bool]]:
    return list(enumerate(marks))


def textbook(order: list[bool], total: int, levels: int) -> list[float]:
    """Return the highest precision at any rank whose recall is at least the level."""
    points = [(sum(order[:rank]), sum(order[:rank]) / rank) for rank in range(1, len(order) + 1)]
    return [
        max(
            (precision for hits, precision in points if hits * (levels - 1) >= level * total and hits),
            default=0.0,
        )
        for level in range(levels)
    ]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(distinct, st.integers(0, 3)), min_size=1, max_size=6), st.sampled_from([2, 11, 101]))
def test_interpolated_precision_without_ties_is_the_textbooks(cases, levels: int) -> None:
    block = brute.block_of([untied(marks) for marks, _ in cases], [missing for _, missing in cases])
    curves = interpolated_precision(block, levels)
    for (marks, missing), curve in zip(cases, curves, strict=True):
        total = sum(marks) + missing
        wanted = textbook(marks, total, levels) if total else [0.0] * levels
        np.testing.assert_allclose(curve, wanted, rtol=0, atol=1e-14)


def test_interpolated_precision_in_a_tie_follows_the_expected_ranks() -> None:
    # Two relevant of five tied items are expected at ranks 2 and 4; a sixth item, relevant, has rank 6.
    ranking = [(0, True), (0, False), (0, True), (0, False), (0, False), (1, True)]
    np.testing.assert_allclose(interpolated_precision(brute.block_of([ranking]), 4), [[0.5, 0.5, 0.5, 0.5]])
    np.testing.assert_allclose(
        interpolated_precision(brute.block_of([[(0, True), (0, True), (1, False), (2, True)]]), 4),
        [[1, 1, 1, 0.75]],
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=12), min_size=1, max_size=5))
def test_curves_over_recall_fall_and_stay_between_0_and_1(rankings) -> None:
    curves = interpolated_precision(brute.block_of(rankings))
    assert (np.diff(curves, axis=1) <= 0).all()
    assert curves.min() >= 0
    assert curves.max() <= 1


def test_precision_at_ranks_equals_precision_at_each() -> None:
    block = brute.block_of([[(0, True), (0, False), (1, True), (1, False), (1, False)], [], untied([0, 1, 1])])
    ranks = log_spaced_ranks()
    for column, rank in enumerate(ranks):
        for curve, value in zip(precision_at_ranks(block, ranks), precision_at(block, int(rank)), strict=True):
            np.testing.assert_array_equal(curve[:, column], value)


def test_log_spaced_ranks_begin_at_1_end_at_the_last_and_do_not_repeat() -> None:
    ranks = log_spaced_ranks(1000)
    assert (ranks[0], ranks[-1]) == (1, 1000)
    assert (np.diff(ranks) > 0).all()
    assert log_spaced_ranks(1).tolist() == [1]


def test_blocks_add_up() -> None:
    rankings = [[(0, True), (1, False), (1, True)], [(2, False), (2, True)], []]
    missing = [0, 1, 2]
    whole, parts = CurveAccumulator(), CurveAccumulator()
    whole.add(brute.block_of(rankings, missing, bits=3))
    for ranking, more in zip(rankings, missing, strict=True):
        parts.add(brute.block_of([ranking], [more], bits=3))
    curves, added = whole.means(), parts.means()
    for name, curve in vars(curves).items():
        if curve is not None:
            assert np.isfinite(curve).all()
            np.testing.assert_allclose(curve, vars(added)[name], atol=1e-15)
    assert curves.distance_edges.tolist() == [-0.5, 0.5, 1.5, 2.5, 3.5]
    assert curves.same_class.tolist() == [1, 1, 1, 0]
    assert curves.other_class.tolist() == [0, 1, 1, 0]
    pessimistic, optimistic = curves.precision_at_k_bounds
    assert (pessimistic <= curves.precision_at_k + 1e-15).all()
    assert (curves.precision_at_k <= optimistic + 1e-15).all()
    assert (pessimistic < optimistic).any()


def test_figures_within_each_radius() -> None:
    rankings = [[(0, True), (1, False), (1, True)], [(2, False), (2, True)], []]
    found = within_radius(brute.block_of(rankings, [0, 1, 2], bits=3), np.arange(4))
    filled = (found.items > 0).sum(0)
    assert found.precision.mean(0) == pytest.approx([1 / 3, (2 / 3) / 3, (2 / 3 + 1 / 2) / 3, (2 / 3 + 1 / 2) / 3])
    assert found.precision.sum(0) / filled == pytest.approx([1, 2 / 3, (2 / 3 + 1 / 2) / 2, (2 / 3 + 1 / 2) / 2])
    assert found.recall.mean(0) == pytest.approx([(1 / 2) / 3, 1 / 3, (1 + 1 / 2) / 3, (1 + 1 / 2) / 3])
    assert (found.items == 0).mean(0) == pytest.approx([2 / 3, 2 / 3, 1 / 3, 1 / 3])
    assert found.items.mean(0) == pytest.approx([1 / 3, 1, 5 / 3, 5 / 3])


def test_a_real_valued_ranking_has_no_counts_of_distances() -> None:
    curves = CurveAccumulator()
    curves.add(brute.block_of([untied([True, False])]))
    assert curves.means().distance_edges is None
    assert curves.means().same_class is None
