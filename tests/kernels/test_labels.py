"""Relevant items as kernels find them, against label matrices."""

from __future__ import annotations

import numpy as np
import pytest

from lshbench.kernels.compilation import kernel
from lshbench.kernels.labels import Labels, LabelTable, find_relevant, is_relevant
from lshbench.types import Listed, Relevance


@kernel
def each(labels: Labels, query: int, relevant: np.ndarray) -> None:
    for row in range(len(relevant)):
        relevant[row] = is_relevant(labels, query, row)


@pytest.mark.parametrize("subset", [False, True])
@pytest.mark.parametrize("classes", [1, 24, 64, 65, 128, 129, 200])
def test_rows_of_masks_are_those_that_share_or_have_all_labels(classes: int, subset: bool) -> None:
    generator = np.random.default_rng(classes)
    queries, gallery = (generator.random((count, classes)) < 3 / (classes + 2) for count in (12, 1_000))
    queries[0], gallery[0], queries[1] = False, False, True
    common = queries.astype(int) @ gallery.T.astype(int)
    has_any = queries.any(1, keepdims=True)
    expected = (common == queries.sum(1, keepdims=True)) & has_any if subset else common > 0
    table = LabelTable.from_relevance(Relevance(queries, gallery, subset=subset))
    assert table.totals.tolist() == expected.sum(1).tolist()
    for query in range(len(queries)):
        memory = np.full(expected[query].sum() + 20, -1, np.int64)
        rows = memory[10:-10]
        find_relevant(table.labels, query, rows)
        assert rows.tolist() == np.flatnonzero(expected[query]).tolist()
        assert np.all(memory[:10] == -1)
        assert np.all(memory[-10:] == -1)
        assert relevant_rows(table, query, len(gallery)) == rows.tolist()


def relevant_rows(table: LabelTable, query: int, items: int) -> list[int]:
    relevant = np.empty(items, np.bool_)
    each(table.labels, query, relevant)
    return np.flatnonzero(relevant).tolist()


def test_rows_with_the_query_s_single_label_are_relevant() -> None:
    table = LabelTable.from_relevance(Relevance(np.array([5, 3, 9]), np.array([3, 5, 3, -7, 5])))
    assert [relevant_rows(table, query, 5) for query in range(3)] == [[1, 4], [0, 2], []]


def test_listed_rows_are_relevant() -> None:
    listed = Listed(np.array([0, 2, 2, 5]), np.array([1, 4, 0, 2, 3]), np.ones(5, np.float32))
    table = LabelTable.of_listed(listed, 5)
    assert [relevant_rows(table, query, 5) for query in range(3)] == [[1, 4], [], [0, 2, 3]]
