"""Published definitions, against loops written the way the published code is."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import rankings as brute
from hypothesis import given, settings
from hypothesis import strategies as st

from lshbench.metrics.definitions import DEFINITIONS, definition_of, hits_average_precision, stable_positions
from lshbench.metrics.measures import concatenate, measure, summarise

lists = st.lists(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=12), min_size=1, max_size=6)

PROMISED = [
    "mAP@all/trec",
    "mAP@candidates/hits",
    "mAP@50/hits_nonempty",
    "P@10/nonempty",
    "P@50/nonempty",
    "mAP@1000/hits",
    "mAP@5000/hits_dropped",
    "mAP@1000/min",
    "mAP@1000/trec",
    "mAP@all/trapezoid",
    "precision@radius2",
    "precision@radius2/nonempty",
]

# Found at ranks 2 and 3 of 4; a hit at rank 5 only; candidates without a hit; no candidate at all.
RANKINGS = [
    [(0, False), (1, True), (2, True), (3, False)],
    [(0, False), (1, False), (2, False), (3, False), (4, True)],
    [(2, False), (3, False)],
    [],
]
MISSING = [1, 0, 2, 3]


def mean(values) -> float | None:
    values = list(values)
    return math.fsum(values) / len(values) if values else None


@pytest.fixture
def worked() -> dict[str, float | None]:
    block = brute.block_of(RANKINGS, MISSING, bits=4)
    return summarise(measure(block, cutoffs=(2, 10), ap_cutoffs=(3, 50)))["definitions"]


def test_hits_divides_by_what_was_found_in_the_top_k(worked) -> None:
    first = (1 / 2 + 2 / 3) / 2
    assert worked["mAP@3/hits"] == pytest.approx(first / 4)
    assert worked["mAP@3/hits_dropped"] == pytest.approx(first)
    assert worked["mAP@3/hits_nonempty"] == pytest.approx(first / 3)
    assert worked["mAP@50/hits"] == pytest.approx((first + 1 / 5) / 4)
    assert worked["mAP@50/hits_dropped"] == pytest.approx((first + 1 / 5) / 2)
    assert worked["mAP@candidates/hits"] == pytest.approx((first + 1 / 5) / 4)


def test_trec_and_min_divide_by_all_relevant_items_and_by_the_smaller_of_them_and_k(worked) -> None:
    assert worked["mAP@all/trec"] == pytest.approx(((1 / 2 + 2 / 3) / 3 + 1 / 5) / 4)
    assert worked["mAP@3/trec"] == pytest.approx((1 / 2 + 2 / 3) / 3 / 4)
    assert worked["mAP@3/min"] == pytest.approx((1 / 2 + 2 / 3) / 3 / 4)
    assert worked["mAP@50/min"] == worked["mAP@all/trec"]


def test_short_lists_divide_by_less_than_k(worked) -> None:
    assert worked["P@10"] == pytest.approx((2 / 10 + 1 / 10) / 4)
    assert worked["P@10/nonempty"] == pytest.approx((2 / 10 + 1 / 10) / 3)
    assert worked["P@10/short_relevant"] == pytest.approx((2 / 3 + 1 / 1) / 4)
    assert worked["P@10/short_ranked"] == pytest.approx((2 / 4 + 1 / 5) / 4)
    assert worked["P@10/short_last"] == pytest.approx((2 / 3 + 1 / 5) / 4)
    assert worked["P@2/short_last"] == pytest.approx(1 / 2 / 4)


def test_precision_within_radius_2_counts_empty_results_as_0_or_leaves_them_out(worked) -> None:
    assert worked["precision@radius2"] == pytest.approx((2 / 3 + 0 / 3 + 0 / 1 + 0) / 4)
    assert worked["precision@radius2/nonempty"] == pytest.approx((2 / 3) / 3)
    assert worked["recall@radius2"] == pytest.approx((2 / 3) / 4)
    assert worked["empty@radius2"] == 1 / 4


def test_every_promised_key_is_there_by_default_and_every_key_is_documented() -> None:
    definitions = summarise(measure(brute.block_of(RANKINGS, MISSING, bits=4)))["definitions"]
    assert set(PROMISED) <= set(definitions)
    for key in definitions:
        assert definition_of(key).description
    apart = {DEFINITIONS["mAP@all/asymmetric_hamming"]}  # of another ranking: lshbench.evaluation.asymmetric_hamming
    assert {definition_of(key) for key in definitions} == set(DEFINITIONS.values()) - apart


@settings(max_examples=80, deadline=None)
@given(lists)
def test_hits_definitions_equal_the_usual_loop_over_a_stable_sort(rankings) -> None:
    block = brute.block_of(rankings)
    for cutoff, values in zip((1, 4, 50), hits_average_precision(block, (1, 4, 50)), strict=True):
        for ranking, value in zip(rankings, values, strict=True):
            parts = brute.precisions(brute.stable_order(ranking), cutoff)
            assert value == pytest.approx(mean(parts) or 0.0, abs=1e-14)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.lists(st.booleans(), max_size=12), st.integers(0, 3)), min_size=1, max_size=6))
def test_other_denominators_equal_the_published_loops_without_ties(cases) -> None:
    block = brute.block_of([list(enumerate(marks)) for marks, _ in cases], [missing for _, missing in cases])
    for k in (1, 3, 20):
        measures = measure(block, cutoffs=(k,), ap_cutoffs=(k,))
        for query, (marks, missing) in enumerate(cases):
            total, hits = sum(marks) + missing, sum(marks[:k])
            ranks = [rank for rank, mark in enumerate(marks, 1) if mark]
            precision = math.fsum(brute.precisions(marks, k))
            wanted = {
                f"AP@{k}/trec": brute.ratio(precision, total),
                f"AP@{k}/min": brute.ratio(precision, min(total, k)),
                f"P@{k}/short_relevant": brute.ratio(hits, min(total, k)),
                f"P@{k}/short_ranked": brute.ratio(hits, min(len(marks), k)),
                f"P@{k}/short_last": brute.ratio(hits, min(max(ranks, default=0), k)),
            }
            for key, value in wanted.items():
                assert measures[key][query] == pytest.approx(value, abs=1e-14), key


def test_without_ties_positions_are_not_needed() -> None:
    plain = brute.block_of(RANKINGS, MISSING, positions=False, bits=4)
    given_positions = brute.block_of(RANKINGS, MISSING, bits=4)
    assert summarise(measure(plain)) == summarise(measure(given_positions))


def test_with_ties_and_no_positions_what_needs_the_order_is_none_and_the_rest_is_not() -> None:
    block = brute.block_of([[(0, True), (0, False)]], positions=False)
    definitions = summarise(measure(block))["definitions"]
    missing = {key for key, value in definitions.items() if value is None}
    ordered = {key for key in definitions if definition_of(key).order == "stable"}
    assert missing == ordered | {key for key in definitions if "radius" in key}


def test_positions_that_stop_before_a_cutoff_are_refused_and_longer_ones_serve() -> None:
    block = brute.block_of(RANKINGS, MISSING)
    with pytest.raises(ValueError, match="stop at rank 4, before the cut-off 5"):
        stable_positions(dataclasses.replace(block, position_limit=4), 5)
    ranks, offsets = stable_positions(dataclasses.replace(block, position_limit=5), 4)
    assert (ranks.tolist(), offsets.tolist()) == ([2, 3], [0, 2, 2, 2, 2])


def test_means_over_no_query_are_none() -> None:
    nothing = summarise(measure(brute.block_of([])))
    assert set(nothing["metrics"].values()) == {None}
    assert set(nothing["definitions"].values()) == {None}
    empty = summarise(measure(brute.block_of([[]], [3], bits=4)))
    assert empty["metrics"]["mAP"] == 0.0
    assert empty["definitions"]["mAP@50/hits_nonempty"] is None
    assert empty["definitions"]["mAP@1000/hits_dropped"] is None
    assert empty["definitions"]["precision@radius2/nonempty"] is None
    assert empty["counts"] == {"queries": 1, "queries_without_relevant": 0, "queries_without_candidates": 1}


def test_the_summary_has_the_promised_metrics_with_bounds_around_them() -> None:
    summary = summarise(measure(brute.block_of([[(0, True), (0, False), (1, True)]])))
    assert {"mAP", "P@10", "P@50", "recall@10", "nDCG@10", "R-precision", "MRR"} <= set(summary["metrics"])
    for key, bounds in summary["ties"].items():
        assert bounds["expected"] == summary["metrics"][key]
        assert bounds["pessimistic"] <= bounds["expected"] <= bounds["optimistic"]
    assert summary["metrics"]["MRR"] == 0.75


def test_measures_of_blocks_concatenate_to_those_of_all_queries() -> None:
    whole = measure(brute.block_of(RANKINGS, MISSING, bits=4))
    parts = [measure(brute.block_of([one], [more], bits=4)) for one, more in zip(RANKINGS, MISSING, strict=True)]
    for key, values in concatenate(parts).items():
        np.testing.assert_array_equal(values, whole[key], err_msg=key)
