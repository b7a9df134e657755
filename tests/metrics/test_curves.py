"""Curves over recall, rank and radius."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rankings as brute
from hypothesis import given, settings
from hypothesis import strategies as st

from lshbench.metrics.curves import CurveAccumulator, interpolated_precision, log_spaced_ranks, precision_at_ranks
from lshbench.metrics.precision import precision_at

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


def test_blocks_add_up_and_the_summary_is_plain_json() -> None:
    rankings = [[(0, True), (1, False), (1, True)], [(2, False), (2, True)], []]
    missing = [0, 1, 2]
    whole, parts = CurveAccumulator(), CurveAccumulator()
    whole.add(brute.block_of(rankings, missing, bits=3))
    for ranking, more in zip(rankings, missing, strict=True):
        parts.add(brute.block_of([ranking], [more], bits=3))
    summary = whole.summary()
    json.dumps(summary, allow_nan=False)
    assert summary["radius"] == parts.summary()["radius"]
    np.testing.assert_allclose(
        summary["precision_recall"]["precision"], parts.summary()["precision_recall"]["precision"], atol=1e-15
    )
    radius = summary["radius"]
    assert radius["radius"] == [0, 1, 2, 3]
    assert radius["precision"] == pytest.approx([1 / 3, (2 / 3) / 3, (2 / 3 + 1 / 2) / 3, (2 / 3 + 1 / 2) / 3])
    assert radius["precision_nonempty"] == pytest.approx([1, 2 / 3, (2 / 3 + 1 / 2) / 2, (2 / 3 + 1 / 2) / 2])
    assert radius["recall"] == pytest.approx([(1 / 2) / 3, 1 / 3, (1 + 1 / 2) / 3, (1 + 1 / 2) / 3])
    assert radius["empty"] == pytest.approx([2 / 3, 2 / 3, 1 / 3, 1 / 3])
    assert radius["items"] == pytest.approx([1 / 3, 1, 5 / 3, 5 / 3])
    assert summary["distances"] == {
        "distance": [0, 1, 2, 3],
        "same_label": [1, 1, 1, 0],
        "other_label": [0, 1, 1, 0],
    }


def test_a_real_valued_ranking_has_no_curve_over_radii() -> None:
    curves = CurveAccumulator()
    curves.add(brute.block_of([untied([True, False])]))
    assert curves.summary()["radius"] is None
    assert curves.summary()["distances"] is None
