"""Relevance by lists, rows left out of rankings, and containment of labels, against sorting and enumeration."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
from brute_force import hamming_matrix, random_codes, random_labels, ranking, read, relevant_matrix
from hypothesis import given, settings
from hypothesis import strategies as st

from lshbench.metrics.measures import concatenate, measure, summarise
from lshbench.ranking.asymmetric_codes import asymmetric_code_blocks
from lshbench.ranking.cosine import cosine_blocks
from lshbench.ranking.hamming import hamming_blocks
from lshbench.ranking.lists import list_blocks
from lshbench.types import Codes, Listed, RankedBlock, Relevance

BITS = 6


def listed_of(grades: np.ndarray, threshold: float = 1.0, graded: bool = True) -> Listed:
    """Return the lists of a matrix ``(q, n)`` of grades, NaN where a row is not listed."""
    query, rows = np.nonzero(~np.isnan(grades))
    offsets = np.searchsorted(query, np.arange(len(grades) + 1))
    return Listed(offsets, rows, grades[query, rows].astype(np.float32), threshold, graded)


def random_grades(random: np.random.Generator, queries: int, items: int, share: float) -> np.ndarray:
    grades = random.integers(-1, 4, (queries, items)).astype(np.float64)
    grades[random.random(grades.shape) > share] = np.nan
    return grades


def ndcg_over_orders(distances: np.ndarray, grades: np.ndarray, cutoff: int | None) -> tuple[float, float, float]:
    """Return the mean, the highest and the lowest nDCG over all orders of ties, all others left out."""
    gain = np.where(np.isnan(grades), 0, np.maximum(grades, 0))
    cutoff = cutoff or len(gain)
    ideal = math.fsum(g / math.log2(rank + 1) for rank, g in enumerate(sorted(gain, reverse=True)[:cutoff], 1))
    groups = [np.flatnonzero(distances == value) for value in np.unique(distances)]
    scores = []
    for parts in itertools.product(*(itertools.permutations(group) for group in groups)):
        order = list(itertools.chain.from_iterable(parts))[:cutoff]
        total = math.fsum(gain[row] / math.log2(rank + 1) for rank, row in enumerate(order, 1))
        scores.append(total / ideal if ideal else 0.0)
    return math.fsum(scores) / len(scores), max(scores), min(scores)


def expect(blocks: list[RankedBlock], distances: np.ndarray, relevant: np.ndarray, kept: np.ndarray) -> None:
    """Compare rankings with sorting what is kept; all matrices are ``(q, n)``."""
    expected = [ranking(d[own], r[own]) for d, r, own in zip(distances, relevant, kept, strict=True)]
    groups, positions, totals, ranked = read(blocks)
    assert groups == [pair[0] for pair in expected]
    assert positions == [pair[1] for pair in expected]
    assert totals == (relevant & kept).sum(1).tolist()
    assert ranked == kept.sum(1).tolist()
    if blocks[0].within is not None:
        within = np.concatenate([block.within for block in blocks])
        wanted = [
            [(d[own] <= step).sum() for step in range(within.shape[1])] for d, own in zip(distances, kept, strict=True)
        ]
        assert within.tolist() == wanted


def vectors_of(codes: Codes) -> np.ndarray:
    """Return vectors of one length whose cosines are exact and tie as Hamming distances do."""
    vectors = np.ones((len(codes), 16), np.float32)
    vectors[:, : codes.bits] = 2.0 * codes.unpack() - 1
    return vectors


def rankings_of(queries: Codes, gallery: Codes, relevance: Relevance) -> Iterator[list[RankedBlock]]:
    """Yield the same rankings by Hamming and asymmetric distance, by cosine, and of lists of all candidates."""
    yield list(hamming_blocks(queries, gallery, relevance))
    projections = 2.0 * queries.unpack().astype(np.float32) - 1
    yield list(asymmetric_code_blocks(projections, gallery, relevance))
    yield list(cosine_blocks(vectors_of(queries), vectors_of(gallery), relevance))
    count, items = len(queries), len(gallery)
    rows = np.concatenate([np.random.default_rng(i).permutation(items) for i in range(count)])
    distances = hamming_matrix(queries, gallery)[np.repeat(np.arange(count), items), rows]
    offsets = items * np.arange(count + 1)
    yield list(list_blocks(offsets, rows, distances.astype(np.float32), relevance, bits=queries.bits))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_lists_rank_as_a_stable_sort_of_what_is_not_left_out(data: st.DataObject) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    count, items = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 150))
    queries, gallery = random_codes(random, count, BITS), random_codes(random, items, BITS)
    grades = random_grades(random, count, items, data.draw(st.floats(0, 1)))
    threshold = data.draw(st.sampled_from([1.0, 2.0]))
    relevance = Relevance.of_lists(listed_of(grades, threshold), items)
    distances = hamming_matrix(queries, gallery)
    for blocks in rankings_of(queries, gallery, relevance):
        expect(blocks, distances, grades >= threshold, ~(grades < 0))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_rows_left_out_of_rankings_by_labels_are_as_if_they_were_not_there(data: st.DataObject) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    count, items = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 150))
    queries, gallery = random_codes(random, count, BITS), random_codes(random, items, BITS)
    labels = random_labels(random, count, items, multiple=data.draw(st.booleans()))
    out = random.random((count, items)) < data.draw(st.floats(0, 0.3))
    subset = data.draw(st.booleans())
    relevance = Relevance(labels.queries, labels.gallery, subset, listed_of(np.where(out, -1.0, np.nan)))
    distances, relevant = hamming_matrix(queries, gallery), relevant_matrix(relevance)
    for blocks in rankings_of(queries, gallery, relevance):
        expect(blocks, distances, relevant, ~out)


@pytest.mark.parametrize("classes", [5, 64, 70, 200])
def test_containment_is_having_all_labels_of_the_query(classes: int) -> None:
    random = np.random.default_rng(classes)
    asked, items = random.random((20, classes)) < 2 / classes, random.random((700, classes)) < 0.5
    asked[3] = False  # a query without labels: nothing answers it
    relevance = Relevance(asked, items, subset=True)
    wanted = np.array(
        [[bool(q.any()) and set(np.flatnonzero(q)) <= set(np.flatnonzero(g)) for g in items] for q in asked]
    )
    assert wanted.any()
    assert not wanted[3].any()
    queries, gallery = random_codes(random, 20, BITS), random_codes(random, 700, BITS)
    for blocks in rankings_of(queries, gallery, relevance):
        expect(blocks, hamming_matrix(queries, gallery), wanted, np.ones_like(wanted))


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_graded_ndcg_is_the_mean_over_all_orders_of_ties_and_its_bounds_are_reached(data: st.DataObject) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    items = data.draw(st.integers(1, 6))
    queries, gallery = random_codes(random, 2, 2), random_codes(random, items, 2)
    grades = random_grades(random, 2, items, 0.8)
    distances = hamming_matrix(queries, gallery)
    for blocks in rankings_of(queries, gallery, Relevance.of_lists(listed_of(grades), items)):
        measures = concatenate([measure(block, cutoffs=(3, 10)) for block in blocks])
        for key, cutoff in (("nDCG", None), ("nDCG@3", 3), ("nDCG@10", 10)):
            for query in range(2):
                kept = ~(grades[query] < 0)
                wanted = (
                    ndcg_over_orders(distances[query][kept], grades[query][kept], cutoff) if kept.any() else (0, 0, 0)
                )
                found = [measures[key + end][query] for end in ("", "_optimistic", "_pessimistic")]
                np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


def test_another_order_of_the_gallery_changes_no_expected_figure() -> None:
    random = np.random.default_rng(0)
    queries, gallery = random_codes(random, 9, BITS), random_codes(random, 400, BITS)
    grades, other = random_grades(random, 9, 400, 0.1), random.permutation(400)
    turned = Codes(gallery.packed[other], BITS)
    pairs = zip(
        rankings_of(queries, gallery, Relevance.of_lists(listed_of(grades), 400)),
        rankings_of(queries, turned, Relevance.of_lists(listed_of(grades[:, other]), 400)),
        strict=True,
    )
    for blocks, moved in pairs:
        one, two = (summarise(concatenate([measure(block) for block in each])) for each in (blocks, moved))
        assert one["metrics"] == two["metrics"]
        assert one["ties"] == two["ties"]


def test_positions_stop_at_the_rank_asked_for_though_rows_are_left_out() -> None:
    random = np.random.default_rng(1)
    queries, gallery = random_codes(random, 6, 16), random_codes(random, 5000, 16)
    grades = random_grades(random, 6, 5000, 0.02)
    labels = random_labels(random, 6, 5000, multiple=False)
    out = np.where(grades < 0, -1.0, np.nan)
    distances, kept = hamming_matrix(queries, gallery), ~(grades < 0)
    for relevance, relevant in (
        (Relevance.of_lists(listed_of(grades), 5000), grades >= 1),
        (Relevance(labels.queries, labels.gallery, listed=listed_of(out)), relevant_matrix(labels)),
    ):
        expected = [ranking(d[own], r[own])[1] for d, r, own in zip(distances, relevant, kept, strict=True)]
        for limit in (1, 40, 4000):
            blocks = list(hamming_blocks(queries, gallery, relevance, positions=limit))
            assert read(blocks)[1] == [[p for p in own if p <= limit] for own in expected]
            measure(blocks[0], ap_cutoffs=(limit,), cutoffs=(1,))


def test_lists_that_cannot_be_meant_are_refused() -> None:
    offsets = np.array([0, 2])
    with pytest.raises(ValueError, match="ascend"):
        Listed(offsets, np.array([3, 3]), np.ones(2, np.float32))
    with pytest.raises(ValueError, match="gallery of 3"):
        Relevance.of_lists(Listed(offsets, np.array([1, 3]), np.ones(2, np.float32)), 3)
    with pytest.raises(ValueError, match="leave rows out"):
        Relevance(np.zeros(1, int), np.zeros(4, int), listed=Listed(offsets, np.array([1, 3]), np.ones(2, np.float32)))


TREC_EVAL = {
    "map": "AP",
    "ndcg": "nDCG",
    "ndcg_cut_10": "nDCG@10",
    "recip_rank": "RR",
    "P_10": "P@10",
    "recall_50": "recall@50",
    "Rprec": "R-precision",
}


@pytest.mark.parametrize("level", [1, 2])
def test_graded_measures_agree_with_trec_eval(level: int) -> None:
    import pytrec_eval

    random = np.random.default_rng(2)
    queries, gallery = random.random((8, 16), np.float32) - 0.5, random.random((300, 16), np.float32) - 0.5
    grades = np.where(random.random((8, 300)) < 0.1, random.integers(0, 4, (8, 300)), np.nan)
    blocks = list(cosine_blocks(queries, gallery, Relevance.of_lists(listed_of(grades, level), 300)))
    assert all((block.size == 1).all() for block in blocks)
    measures = concatenate([measure(block) for block in blocks])
    cosines = (queries @ gallery.T) / np.linalg.norm(gallery, axis=1) / np.linalg.norm(queries, axis=1)[:, None]
    judged = {f"q{i}": {f"d{row}": int(g) for row, g in enumerate(own) if g >= 0} for i, own in enumerate(grades)}
    run = {f"q{i}": {f"d{row}": float(value) for row, value in enumerate(own)} for i, own in enumerate(cosines)}
    found = pytrec_eval.RelevanceEvaluator(judged, set(TREC_EVAL), relevance_level=level).evaluate(run)
    for theirs, ours in TREC_EVAL.items():
        values = [found[f"q{i}"][theirs] for i in range(8)]
        np.testing.assert_allclose(measures[ours], values, rtol=0, atol=1e-12, err_msg=ours)
