"""What every source refuses, and what it makes of labels and features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lshbench.data import checks
from lshbench.data.base import Dataset, Split
from lshbench.data.checks import check_dataset, match_labels, raw_labels, read_features
from lshbench.errors import UsageError
from lshbench.types import Progress


class Labelled(Split):
    kind = "features"

    def __init__(self, name: str, labels: list[int] | np.ndarray, width: int = 4) -> None:
        self.name = name
        self.labels = np.asarray(labels)
        self.width = width

    def fingerprint(self, rows: np.ndarray | None = None) -> str:
        return "sha256:0"


@pytest.mark.parametrize(
    ("gallery", "query", "message"),
    [
        (
            [0, 1, 2],
            [0, -1, -1],
            r"the query split 'test' has the label -1 for 2 of 3 items \(the first is row 1\)",
        ),
        ([0, -1], [0, 1], "the gallery split 'train' has the label -1"),
        ([3, 3, 3], [3, 1], "the gallery split 'train' has one class only"),
        ([0, 1], [], "the query split 'test' is empty"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(gallery: list[int], query: list[int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_dataset(Dataset("made", Labelled("train", gallery), Labelled("test", query)))


def test_queries_of_one_class_are_judged() -> None:
    check_dataset(Dataset("made", Labelled("train", [0, 1]), Labelled("test", [1, 1])))


def test_the_message_on_missing_labels_says_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"dataset.query_split \(of ImageNet: val"):
        check_dataset(Dataset("made", Labelled("train", [0, 1]), Labelled("test", [-1, -1])))


def test_differing_widths_of_the_splits_are_refused() -> None:
    with pytest.raises(UsageError, match=r"'train' have 4 values.*'test' 5"):
        check_dataset(Dataset("made", Labelled("train", [0, 1]), Labelled("test", [0, 1], width=5)))


@pytest.mark.parametrize("kind", ["int8", "uint16", "int64", "float32", "float64", "bool"])
def test_whole_numbers_of_any_type_are_labels(kind: str) -> None:
    raw = raw_labels(np.array([0, 1, 1], kind), "labels")
    assert raw.values.dtype == np.int64
    np.testing.assert_array_equal(raw.values, [0, 1, 1])


def test_broken_numbers_are_no_labels() -> None:
    with pytest.raises(UsageError, match=r"2 values that are no whole numbers.*row 1, 0.5"):
        raw_labels(np.array([0, 0.5, np.nan]), "labels")


def test_words_are_numbered_by_the_sorted_vocabulary_of_both_splits() -> None:
    gallery = raw_labels(np.array(["dog", "cat", "dog"]), "gallery")
    query = raw_labels(np.array([b"ant", b"dog"]), "query")
    (left, right), names = match_labels(gallery, query)
    assert names == ("ant", "cat", "dog")
    np.testing.assert_array_equal(left, [2, 1, 2])
    np.testing.assert_array_equal(right, [0, 2])


def test_huge_numbers_are_renumbered_and_keep_their_value_as_name() -> None:
    gallery = raw_labels(np.array([10**12, 5, 10**12]), "gallery")
    (left, right), names = match_labels(gallery, raw_labels(np.array([5, 7]), "query"))
    np.testing.assert_array_equal(left, [2, 0, 2])
    np.testing.assert_array_equal(right, [0, 1])
    assert names == ("5", "7", str(10**12))


def test_numbers_and_words_do_not_go_together() -> None:
    with pytest.raises(UsageError, match="gallery holds text, but query holds numbers"):
        match_labels(raw_labels(np.array(["a"]), "gallery"), raw_labels(np.array([1]), "query"))


def test_a_matrix_of_zeros_and_ones_gives_several_labels_an_item() -> None:
    matrix = np.array([[1, 0, 1], [0, 1, 0]], np.uint8)
    (left, right), _ = match_labels(raw_labels(matrix, "gallery"), raw_labels(matrix.astype(float), "query"))
    assert left.dtype == right.dtype == bool
    np.testing.assert_array_equal(left, matrix.astype(bool))


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_values_that_are_no_numbers_are_counted_and_the_first_is_named(
    monkeypatch: pytest.MonkeyPatch, silent: Progress, order: slice
) -> None:
    monkeypatch.setattr(checks, "BLOCK_BYTES", 8 * 4 * 10)
    x = np.ones((100, 4))
    x[37, 2] = np.nan
    x[93, :2] = -np.inf
    x[60, 0] = 1e300
    with pytest.raises(UsageError, match=r"made has 4 values .* in 3 of 100 rows; the first is row 37"):
        read_features(np.arange(100)[order], 4, lambda rows: x[rows], "made", silent)


def test_features_come_as_float32_in_the_order_asked_for(monkeypatch: pytest.MonkeyPatch, told: Any) -> None:
    monkeypatch.setattr(checks, "BLOCK_BYTES", 8 * 3 * 7)
    x = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float16)
    rows = np.random.default_rng(1).permutation(50)[:30]
    seen: list[np.ndarray] = []

    def read(block: np.ndarray) -> np.ndarray:
        seen.append(block)
        return x[block]

    got = read_features(rows, 3, read, "made", told)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, x[rows].astype(np.float32))
    np.testing.assert_array_equal(np.concatenate(seen), np.sort(rows))
    assert told.lines == [("reading made", 30, "rows", 30)]
