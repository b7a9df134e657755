"""Class-balanced subsets and held-out parts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lshbench.data.subset import balanced_rows, held_out_rows

LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=80).map(np.array)


@settings(deadline=None)
@given(labels=LABELS, count=st.integers(0, 90), seed=st.integers(0, 5))
def test_classes_differ_by_at_most_one_unless_one_runs_out(labels: np.ndarray, count: int, seed: int) -> None:
    rows = balanced_rows(labels, count, seed)
    assert len(rows) == min(count, len(labels))
    assert (np.diff(rows) > 0).all()
    assert rows.dtype == np.int64
    there = np.bincount(labels, minlength=7)
    taken = np.bincount(labels[rows], minlength=7)
    # A class may lie more than one below the fullest only if it has given everything.
    behind = taken < taken.max(initial=0) - 1
    np.testing.assert_array_equal(taken[behind], there[behind])


@settings(deadline=None)
@given(labels=LABELS, small=st.integers(0, 40), more=st.integers(0, 40), seed=st.integers(0, 5))
def test_a_smaller_subset_is_part_of_a_larger_one(labels: np.ndarray, small: int, more: int, seed: int) -> None:
    assert np.isin(balanced_rows(labels, small, seed), balanced_rows(labels, small + more, seed)).all()


def test_the_seed_decides_which() -> None:
    labels = np.arange(1000) % 10
    one, again, other = (balanced_rows(labels, 100, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(np.bincount(labels[other]), [10] * 10)


def test_small_classes_give_all_and_the_others_fill_up() -> None:
    labels = np.array([0] * 50 + [1] * 2 + [2] * 50)
    np.testing.assert_array_equal(np.bincount(labels[balanced_rows(labels, 22, 0)]), [10, 2, 10])


def test_an_item_with_several_labels_counts_for_its_rarest() -> None:
    # Class 0 is on every item, class 1 on ten, class 2 on four.
    labels = np.zeros((100, 3), bool)
    labels[:, 0] = True
    labels[:10, 1] = True
    labels[10:14, 2] = True
    rows = balanced_rows(labels, 9, 3)
    groups = np.where(rows < 10, 1, np.where(rows < 14, 2, 0))
    np.testing.assert_array_equal(np.bincount(groups), [3, 3, 3])


@settings(deadline=None)
@given(labels=LABELS, fraction=st.floats(0.01, 0.99), seed=st.integers(0, 5))
def test_held_out_parts_leave_some_of_every_class(labels: np.ndarray, fraction: float, seed: int) -> None:
    stay, held_out = held_out_rows(labels, fraction, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([stay, held_out])), np.arange(len(labels)))
    for label in np.unique(labels):
        size = int((labels == label).sum())
        out = int((labels[held_out] == label).sum())
        assert 1 <= out <= size - 1 if size > 1 else out == 0
        assert abs(out - fraction * size) <= 1.0 or size == 1


@pytest.mark.parametrize("count", [1797, 5000])
def test_more_than_there_is_takes_all(count: int) -> None:
    np.testing.assert_array_equal(balanced_rows(np.zeros(1797, np.int64), count, 0), np.arange(1797))
