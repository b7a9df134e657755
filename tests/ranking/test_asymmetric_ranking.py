"""Ranking of binary codes by a query's projections, against exact sums."""

from __future__ import annotations

import numpy as np
import pytest
from brute_force import nearest, random_codes, random_labels, ranking, read, relevant_matrix
from numba import get_num_threads, set_num_threads

from lshbench.kernels import asymmetric as kernels
from lshbench.ranking import asymmetric_codes
from lshbench.ranking.asymmetric_codes import asymmetric_code_blocks, asymmetric_code_neighbors
from lshbench.types import Codes, Relevance


def whole(projections: np.ndarray) -> np.ndarray:
    """Return projections as the whole numbers that they are rounded to, whose magnitudes add up to nearly 2^24."""
    totals = np.abs(projections.astype(np.float64)).sum(axis=1, keepdims=True)
    scale = 2.0 ** np.floor(np.log2((2**24 - projections.shape[1]) / np.where(totals > 0, totals, 1)))
    return np.rint(projections * scale)


def sums(weights: np.ndarray, queries: Codes, gallery: Codes) -> np.ndarray:
    """Return the magnitudes summed over the bits that differ, float64 ``(q, n)``."""
    ours, theirs = queries.unpack().astype(np.float64), gallery.unpack().astype(np.float64)
    weights = np.abs(weights.astype(np.float64))
    return (weights * ours) @ (1 - theirs).T + (weights * (1 - ours)) @ theirs.T


@pytest.mark.parametrize("kinds", [0, 25])
@pytest.mark.parametrize("multiple", [False, True])
@pytest.mark.parametrize(("bits", "items"), [(3, 700), (12, 2100), (64, 1500), (90, 700), (130, 300)])
def test_rankings_are_those_of_the_sums_of_differing_bits(bits: int, items: int, multiple: bool, kinds: int) -> None:
    generator = np.random.default_rng(bits)
    projections = generator.standard_normal((37, bits)) * 10.0 ** generator.integers(-20, 20, (37, 1))
    projections = projections.astype(np.float32)
    projections[3] = 0
    codes = random_codes(generator, items, bits)
    if kinds:  # most items tie
        codes = Codes(codes.packed[generator.integers(0, kinds, items)], bits)
    relevance = random_labels(generator, 37, items, multiple=multiple)
    exact = sums(whole(projections), Codes.from_signs(projections), codes)
    expected = [ranking(row, own) for row, own in zip(exact, relevant_matrix(relevance), strict=True)]
    groups, positions, _, ranked = read(asymmetric_code_blocks(projections, codes, relevance))
    assert groups == [pair[0] for pair in expected]
    assert positions == [pair[1] for pair in expected]
    assert ranked == [items] * 37
    assert read(asymmetric_code_blocks(projections, codes, relevance, positions=0))[0] == groups
    for k in (5, 40):
        found = asymmetric_code_neighbors(projections, codes, k)
        for row, ids in zip(exact, found.ids, strict=True):
            assert ids.tolist() == nearest(row, k).tolist()
    # Distances are the magnitudes of the projections themselves, as near as float32 holds their sum.
    near = np.take_along_axis(sums(projections, Codes.from_signs(projections), codes), found.ids, axis=1)
    total = np.abs(projections.astype(np.float64)).sum(axis=1)[:, None]
    assert (np.abs(found.distances - near) <= bits * total / 2**23).all()


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(("equal", "shared"), [(0, True), (3000, False)])
def test_few_relevant_items_are_ranked_with_bins_that_share_room_unless_one_is_too_full(
    equal: int, shared: bool, wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    monkeypatch.setattr(asymmetric_codes, "WIDE_DISTANCES", 1 << 21 if wide else 0)
    items, queries = 6000, 40
    before = get_num_threads()
    set_num_threads(min(2, before))
    projections = generator.standard_normal((queries, 24)).astype(np.float32)
    codes = random_codes(generator, items, 24)
    codes = Codes(codes.packed[np.maximum(generator.permutation(items), equal)], 24)
    relevance = Relevance(generator.integers(0, 100, queries), generator.integers(0, 100, items))
    exact = sums(whole(projections), Codes.from_signs(projections), codes)
    expected = [ranking(row, own)[0] for row, own in zip(exact, relevant_matrix(relevance), strict=True)]
    try:
        assert asymmetric_codes._together(queries, items) == (16 if wide else 8)
        assert read(asymmetric_code_blocks(projections, codes, relevance, positions=0))[0] == expected
        both = read(asymmetric_code_blocks(projections, codes, relevance, positions=None))
    finally:
        set_num_threads(before)
    assert both[0] == expected
    # Which of the two ways it was: relevant items of the first query, and the bins of all.
    keys = np.sort(exact[0].astype(np.uint64)[relevant_matrix(relevance)[0]]) << np.uint64(32)
    bins = np.empty(kernels.BINS, np.uint32)
    assert kernels.SPARSE * len(keys) <= items
    relevant = kernels._distinct_bins(keys, np.empty_like(keys))
    room = kernels._share_room(relevant, items, bins)
    ends = bins + np.bincount(exact[0].astype(np.int64) >> kernels.LOW_BITS, minlength=kernels.BINS).astype(np.uint32)
    starts = np.empty(kernels.BINS + 1, np.uint32)
    assert kernels._count_shared(relevant, room, items, ends, starts) == shared


@pytest.mark.parametrize("items", [1, 9000])
@pytest.mark.parametrize("few_bytes", [0, asymmetric_codes.FEW_BYTES])
def test_few_queries_and_those_of_a_batch_find_the_same(
    items: int, few_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asymmetric_codes, "FEW_BYTES", few_bytes)
    generator = np.random.default_rng(0)
    codes = random_codes(generator, items, 40)
    projections = generator.standard_normal((21, 40)).astype(np.float32)
    together = asymmetric_code_neighbors(projections, codes, 30)
    for rows in [*(slice(row, row + 1) for row in range(21)), slice(3, 12), slice(6, 21)]:
        few = asymmetric_code_neighbors(projections[rows], codes, 30)
        assert np.array_equal(few.ids, together.ids[rows])
        assert np.array_equal(few.distances, together.distances[rows])


def test_more_hits_than_items_are_padded_and_projections_must_be_finite() -> None:
    codes = Codes.from_signs(np.eye(5))
    found = asymmetric_code_neighbors(np.ones((2, 5), np.float32), codes, 7)
    assert (found.ids[:, 5:] == -1).all()
    assert np.isinf(found.distances[:, 5:]).all()
    with pytest.raises(ValueError, match="projections of 12 numbers for codes of 5 bits"):
        asymmetric_code_neighbors(np.ones((2, 12), np.float32), codes, 7)
    wrong = np.ones((3, 5), np.float32)
    wrong[1, 2] = np.nan
    labels = Relevance(np.zeros(3, np.int64), np.zeros(5, np.int64))
    with pytest.raises(ValueError, match="projections of query 1 hold NaN or infinite"):
        asymmetric_code_neighbors(wrong, codes, 2)
    with pytest.raises(ValueError, match="projections of query 1 hold NaN or infinite"):
        list(asymmetric_code_blocks(wrong, codes, labels))
