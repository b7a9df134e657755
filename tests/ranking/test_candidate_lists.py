"""Rankings of candidate lists against sorting, and against the full rankings where lists hold everything."""

from __future__ import annotations

import numpy as np
import pytest
from brute_force import hamming_matrix, nearest, random_codes, random_labels, ranking, read, relevant_matrix
from hypothesis import given, settings
from hypothesis import strategies as st

from lshbench.kernels.keys import RADIX_SORTED, sort_whole
from lshbench.ranking import lists
from lshbench.ranking.hamming import hamming_blocks, hamming_neighbors
from lshbench.ranking.lists import list_blocks, list_neighbors
from lshbench.types import Relevance

Lists = tuple[np.ndarray, np.ndarray, np.ndarray]


def compressed(random: np.random.Generator, distances: np.ndarray, listed: np.ndarray) -> Lists:
    """Return the listed entries of a distance matrix as lists in random order."""
    rows = [random.permutation(np.flatnonzero(own)) for own in listed]
    offsets = np.concatenate([[0], np.cumsum([len(own) for own in rows])])
    values = np.concatenate([distances[i][own] for i, own in enumerate(rows)]).astype(np.float32)
    return offsets, np.concatenate(rows).astype(np.int64), values


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_any_lists_rank_as_a_stable_sort_of_them_does(data: st.DataObject) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    queries, items = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 60))
    levels = data.draw(st.integers(1, 20))
    distances = random.integers(0, levels, (queries, items)) / 3 - 1
    listed = random.random((queries, items)) < data.draw(st.floats(0, 1))
    relevance = random_labels(random, queries, items, multiple=data.draw(st.booleans()))
    relevant = relevant_matrix(relevance)
    given_lists = compressed(random, distances, listed)

    expected = [ranking(distances[i][own], relevant[i][own]) for i, own in enumerate(listed)]
    groups, positions, totals, ranked = read(list_blocks(*given_lists, relevance))
    assert groups == [pair[0] for pair in expected]
    assert positions == [pair[1] for pair in expected]
    assert totals == relevant.sum(1).tolist()
    assert ranked == listed.sum(1).tolist()

    k = data.draw(st.integers(1, 70))
    found = list_neighbors(*given_lists, k)
    assert found.candidates.tolist() == listed.sum(1).tolist()
    for i, own in enumerate(listed):
        rows = np.flatnonzero(own)
        rows = rows[nearest(distances[i][rows], k)]
        assert found.ids[i, : len(rows)].tolist() == rows.tolist()
        assert found.distances[i, : len(rows)].tolist() == distances[i][rows].astype(np.float32).tolist()
        assert (found.ids[i, len(rows) :] == -1).all()
        assert np.isinf(found.distances[i, len(rows) :]).all()


def test_lists_that_hold_the_whole_gallery_rank_as_the_gallery_does() -> None:
    random = np.random.default_rng(0)
    queries, gallery = random_codes(random, 12, 32), random_codes(random, 800, 32)
    relevance = random_labels(random, 12, 800, multiple=False)
    full = compressed(random, hamming_matrix(queries, gallery), np.ones((12, 800), bool))
    assert read(list_blocks(*full, relevance)) == read(hamming_blocks(queries, gallery, relevance))
    ours, theirs = list_neighbors(*full, 50), hamming_neighbors(queries, gallery, 50)
    assert np.array_equal(ours.ids, theirs.ids)
    assert np.array_equal(ours.distances, theirs.distances)


@pytest.mark.parametrize("items", [RADIX_SORTED - 1, RADIX_SORTED, 2048, 2049, 5000])
def test_long_lists_are_sorted_by_distance_and_then_by_row(items: int) -> None:
    random = np.random.default_rng(items)
    keys = random.integers(0, 40, items).astype(np.uint64) << np.uint64(32) | random.permutation(3 * items)[
        :items
    ].astype(np.uint64)
    expected = np.sort(keys)
    sort_whole(keys)
    assert np.array_equal(keys, expected)


def test_items_outside_the_list_count_as_relevant_but_never_retrieved() -> None:
    relevance = Relevance(np.array([1, 1, 2]), np.array([1, 1, 0, 1]))
    offsets, rows, distances = np.array([0, 2, 2, 3]), np.array([2, 1, 0]), np.array([0.5, 0.5, 0.1], np.float32)
    (block,) = list_blocks(offsets, rows, distances, relevance)
    assert block.total_relevant.tolist() == [3, 3, 0]
    assert block.ranked.tolist() == [2, 0, 1]
    assert block.offsets.tolist() == [0, 1, 1, 1]
    assert (block.before.tolist(), block.size.tolist(), block.relevant.tolist()) == ([0], [2], [1])
    assert block.positions.tolist() == [1]


def test_negative_zero_ties_with_zero() -> None:
    relevance = Relevance(np.array([1]), np.array([1, 0]))
    (block,) = list_blocks(np.array([0, 2]), np.array([0, 1]), np.array([0.0, -0.0], np.float32), relevance)
    assert block.size.tolist() == [2]


def test_blocks_of_lists_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    listed = random.random((40, 300)) < 0.3
    given_lists = compressed(random, random.integers(0, 30, (40, 300)), listed)
    relevance = random_labels(random, 40, 300, multiple=True)
    whole = list(list_blocks(*given_lists, relevance))
    neighbors = list_neighbors(*given_lists, 7)
    monkeypatch.setattr(lists, "BLOCK_ITEMS", 400)
    parts = list(list_blocks(*given_lists, relevance))
    assert len(whole) == 1
    assert len(parts) > 5
    assert read(whole) == read(parts)
    assert np.array_equal(neighbors.ids, list_neighbors(*given_lists, 7).ids)


@pytest.mark.parametrize(
    ("offsets", "rows", "distances", "message"),
    [
        ([0, 3], [0, 1], [0, 0], "offsets from 0 to 3 for 2 rows"),
        ([0, 2], [0, 5], [0, 0], "row 5"),
        ([0, 2], [0, -1], [0, 0], "row -1"),
        ([0, 2], [1, 1], [0, 0], "query 0 holds a row twice"),
        ([0, 2], [0, 1], [0, np.nan], "1 of 2 distances are NaN"),
        ([0, 1, 2], [0, 1], [0, 0], "2 lists for 1 queries"),
    ],
)
def test_lists_that_cannot_be_right_are_refused(
    offsets: list[int], rows: list[int], distances: list[float], message: str
) -> None:
    relevance = Relevance(np.array([1]), np.array([1, 0, 1]))
    with pytest.raises(ValueError, match=message):
        list(list_blocks(np.array(offsets), np.array(rows), np.array(distances, np.float32), relevance))
