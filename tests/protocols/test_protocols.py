"""Protocols and their audit."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lshbench.data.base import Dataset, Split
from lshbench.errors import UsageError
from lshbench.protocols.audit import audit, check_overlap, near_copies
from lshbench.protocols.splits import (
    EvaluationProtocol,
    LeaveOneOutProtocol,
    PooledProtocol,
    Selection,
    SplitProtocol,
    UnseenClassesProtocol,
)
from lshbench.relevance.base import listed_pairs, own_rows
from lshbench.types import unlabelled


class LabelledSplit(Split):
    kind = "features"

    def __init__(self, name: str, labels: np.ndarray) -> None:
        self.name = name
        self.labels = labels

    def fingerprint(self, rows: np.ndarray | None = None) -> str:
        return "sha256:0"


def dataset(gallery: int = 60, queries: int = 20, classes: int = 5, names: tuple[str, str] = ("a", "b")) -> Dataset:
    return Dataset(
        "made",
        LabelledSplit(names[0], np.arange(gallery) % classes),
        LabelledSplit(names[1], np.arange(queries) % classes),
    )


def no_digests(selection: Selection) -> dict[str, np.ndarray]:
    return {name: getattr(selection, name).astype(np.uint64) for name in ("queries", "gallery", "train")}


PROTOCOLS: list[EvaluationProtocol] = [
    SplitProtocol("report", False),
    PooledProtocol(queries_per_class=2, train_per_class=3, train_in_gallery=False),
    PooledProtocol(queries_per_class=2, train_per_class=3, train_in_gallery=True),
    UnseenClassesProtocol(held_out=0.4),
]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 100), which=st.sampled_from(range(4)), limit=st.sampled_from([None, 30, 41]))
def test_no_protocol_lets_a_query_into_gallery_or_training(seed: int, which: int, limit: int | None) -> None:
    selection = PROTOCOLS[which].select(dataset(), seed, limit, None)
    assert not np.isin(selection.queries, selection.gallery).any()
    assert not np.isin(selection.queries, selection.train).any()
    for items in (selection.queries, selection.gallery, selection.train):
        assert (np.diff(items) > 0).all()
    assert limit is None or len(selection.gallery) <= limit


def test_full_takes_the_splits_as_they_are() -> None:
    selection = SplitProtocol("report", False).select(dataset(), 0, None, None)
    np.testing.assert_array_equal(selection.gallery, np.arange(60))
    np.testing.assert_array_equal(selection.train, np.arange(60))
    np.testing.assert_array_equal(selection.queries, 60 + np.arange(20))


def test_training_shrinks_with_the_gallery_it_is_part_of() -> None:
    selection = SplitProtocol("report", False).select(dataset(), 0, 10, 5)
    np.testing.assert_array_equal(selection.train, selection.gallery)
    labels = np.concatenate([np.arange(60) % 5, np.arange(20) % 5])
    np.testing.assert_array_equal(np.bincount(labels[selection.gallery]), [2] * 5)
    np.testing.assert_array_equal(np.bincount(labels[selection.queries]), [1] * 5)


def test_pooled_splits_draw_queries_and_training_a_class_from_both_splits() -> None:
    outside = PROTOCOLS[1].select(dataset(), 3, None, None)
    inside = PROTOCOLS[2].select(dataset(), 3, None, None)
    assert (len(outside.queries), len(outside.train), len(outside.gallery)) == (10, 15, 55)
    assert (len(inside.queries), len(inside.train), len(inside.gallery)) == (10, 15, 70)
    assert not np.isin(outside.train, outside.gallery).any()
    assert np.isin(inside.train, inside.gallery).all()
    assert (outside.queries >= 60).any() or (outside.queries < 60).any()


def test_pooled_splits_say_which_class_is_too_small() -> None:
    with pytest.raises(UsageError, match="class 0 has 16 items"):
        PooledProtocol(queries_per_class=10, train_per_class=6, train_in_gallery=True).select(dataset(), 0, None, None)


def test_held_out_classes_are_never_trained_on() -> None:
    data = dataset()
    selection = UnseenClassesProtocol(held_out=0.4).select(data, 1, None, None)
    labels = np.concatenate([data.gallery.labels, data.query.labels])
    unseen = set(labels[selection.queries])
    assert len(unseen) == 2
    assert unseen == set(labels[selection.gallery])
    assert not unseen & set(labels[selection.train])
    assert len(selection.train) == 36
    other = UnseenClassesProtocol(held_out=0.4).select(data, 2, None, None)
    assert set(labels[other.queries]) != unseen or other.hash() == selection.hash()


def several_labels(gallery: int = 200, queries: int = 40) -> Dataset:
    """Items of one to three of six labels, the first label far more often than the last; some have none."""
    random = np.random.default_rng(0)
    labels = random.random((gallery + queries, 6)) < np.linspace(0.5, 0.15, 6)
    return Dataset("made", LabelledSplit("a", labels[:gallery]), LabelledSplit("b", labels[gallery:]))


def test_pooled_splits_draw_items_of_several_labels_once_for_each_class() -> None:
    data = several_labels()
    selection = PooledProtocol(queries_per_class=4, train_per_class=5, train_in_gallery=False).select(
        data, 0, None, None
    )
    assert (len(selection.queries), len(selection.train), len(selection.gallery)) == (24, 30, 240 - 54)
    assert len(selection.items()) == 240
    assert (data.labels[selection.queries].sum(0) >= 4).all()
    assert (data.labels[selection.train].sum(0) >= 5).all()
    with pytest.raises(UsageError, match=r"class \d has \d+ items that no rarer class has drawn"):
        PooledProtocol(30, 30, True).select(data, 0, None, None)


def test_held_out_classes_of_several_labels_leave_out_items_of_both_sides(caplog: pytest.LogCaptureFixture) -> None:
    data = several_labels()
    selection = UnseenClassesProtocol(held_out=0.5).select(data, 0, None, None)
    trained = data.labels[selection.train].any(0)
    judged = data.labels[np.concatenate([selection.queries, selection.gallery])].any(0)
    assert not (trained & judged).any()
    assert (int(trained.sum()), int(judged.sum())) == (3, 3)
    assert re.search(r"\d+ of 240 items have classes of both sides, or none, and are left out", caplog.text)


def test_a_training_set_of_the_data_sets_own_is_kept_to_what_a_protocol_allows() -> None:
    plain = dataset()
    own = Dataset("made", plain.gallery, plain.query, train=LabelledSplit("c", np.arange(10) % 5))
    full = SplitProtocol("report", False).select(own, 0, None, None)
    np.testing.assert_array_equal(full.train, np.arange(80, 90))
    unseen = UnseenClassesProtocol(held_out=0.4).select(own, 1, None, None)
    assert set(unseen.train) <= set(range(80, 90))
    assert not set(own.labels[unseen.train]) & set(own.labels[unseen.queries])
    with pytest.raises(UsageError, match="draws a training set of its own"):
        PROTOCOLS[1].select(own, 0, None, None)


def test_protocols_that_draw_by_class_refuse_items_without_labels() -> None:
    plain = dataset()
    none = Dataset("made", *(LabelledSplit(split.name, unlabelled(len(split))) for split in plain.splits))
    assert len(SplitProtocol("report", False).select(none, 0, 30, 5).gallery) == 30
    for protocol in PROTOCOLS[1:]:
        with pytest.raises(UsageError, match="the data set has no labels: expected protocol=full"):
            protocol.select(none, 0, None, None)


def test_the_same_seed_gives_the_same_split_hash() -> None:
    for protocol in PROTOCOLS:
        assert protocol.select(dataset(), 4, 20, 5).hash() == protocol.select(dataset(), 4, 20, 5).hash()


def test_queries_from_the_gallerys_own_split_are_refused() -> None:
    data = dataset(60, 60, names=("train", "train"))
    protocol = SplitProtocol("report", False)
    selection = protocol.select(data, 0, None, None)
    with pytest.raises(UsageError, match=r"60 of 60 queries are in the gallery"):
        audit(protocol, selection, data.gallery.labels, no_digests(selection))


def test_an_allowed_leak_carries_a_flag() -> None:
    data = dataset(60, 60, names=("train", "train"))
    protocol = SplitProtocol("report", allow_leak=True)
    selection = protocol.select(data, 0, None, None)
    report = audit(protocol, selection, data.gallery.labels, no_digests(selection))
    assert report["leak"] is True
    assert report["query_gallery_overlap"] == 60
    assert report["exact_duplicates"] == 0


def test_labels_that_occur_together_are_counted_and_so_are_copies_of_training_items() -> None:
    labels = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1], [0, 0, 0], [1, 1, 0], [0, 1, 0], [1, 0, 0]], bool)
    parts = LabelledSplit("a", labels[:4]), LabelledSplit("b", labels[4:5])
    data = Dataset("made", *parts, train=LabelledSplit("c", labels[5:]))
    selection = SplitProtocol("report", False).select(data, 0, None, None)
    digests = no_digests(selection)
    digests["train"][0] = digests["gallery"][2]
    report = audit(SplitProtocol("report", False), selection, labels, digests)
    assert report["train_gallery_copies"] == 1
    assert (report["train_gallery_overlap"], report["exact_duplicates"]) == (0, 0)
    assert report["labels"]["gallery"] == {
        "none": 1, "several": 3, "mean": 7 / 4, "most": 3, "pairs": [[0, 1, 2], [1, 2, 2], [0, 2, 1]],
    }  # fmt: skip
    single = dataset()
    selection = SplitProtocol("report", False).select(single, 0, None, None)
    assert audit(SplitProtocol("report", False), selection, single.labels, no_digests(selection))["labels"] is None


def test_near_copies_are_nearest_items_of_almost_the_same_direction() -> None:
    gallery = np.eye(3, dtype=np.float32)
    queries = np.array([[2, 0, 0], [1, 0.04, 0], [1, 0.05, 0], [0, 0, 0], [0, 1, 0]], np.float32)
    assert near_copies(queries, gallery, np.array([0, 0, 0, 1, -1])) == 2


def test_copies_across_the_splits_are_counted_or_refused() -> None:
    data = dataset()
    labels = np.concatenate([data.gallery.labels, data.query.labels])
    selection = SplitProtocol("report", False).select(data, 0, None, None)
    digests = no_digests(selection)
    digests["queries"][[3, 7]] = digests["gallery"][0]
    report = audit(SplitProtocol("report", False), selection, labels, digests)
    assert report["exact_duplicates"] == 2
    assert report["leak"] is False
    with pytest.raises(UsageError, match=r"2 of 20 queries have an exact copy in the gallery.*item 63"):
        audit(SplitProtocol("error", False), selection, labels, digests)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SplitProtocol("no", False), "protocol.duplicates='no': expected report or error"),
        (lambda: UnseenClassesProtocol(held_out=1.5), "protocol.held_out=1.5"),
        (lambda: PooledProtocol(0, 5, True), "protocol.queries_per_class=0"),
    ],
)
def test_wrong_values_are_named(make, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def test_queries_that_were_copied_into_the_gallery_are_refused_like_an_overlap() -> None:
    data = dataset()
    labels = np.concatenate([data.gallery.labels, data.query.labels])
    selection = SplitProtocol("report", False).select(data, 0, None, None)
    digests = no_digests(selection)
    digests["gallery"][:20] = digests["queries"]
    with pytest.raises(UsageError, match=r"20 of 20 queries have an exact copy in the gallery.*too good"):
        audit(SplitProtocol("report", False), selection, labels, digests)
    report = audit(SplitProtocol("report", allow_leak=True), selection, labels, digests)
    assert (report["leak"], report["query_gallery_overlap"], report["exact_duplicates"]) == (True, 0, 20)


def test_copies_in_a_set_that_queries_itself_are_counted_and_are_a_leak_only_in_a_training_set_apart() -> None:
    data = dataset()
    labels = np.concatenate([data.gallery.labels, data.query.labels])
    for items, copies in (("all", 80), ("query", 20)):
        protocol = LeaveOneOutProtocol(items)
        selection = protocol.select(data, 0, None, None)
        digests = no_digests(selection)
        digests["queries"][:] = digests["gallery"][:] = 999
        count = len(selection.queries)
        own = own_rows(selection.queries, selection.gallery)
        listed = listed_pairs(np.arange(count), own, np.full(count, -1), count)
        report = audit(protocol, selection, labels, digests, listed)
        assert (report["exact_duplicates"], report["exact_duplicates_train"], report["leak"]) == (copies, 0, False)
        with pytest.raises(UsageError, match="have an exact copy in the gallery"):
            audit(LeaveOneOutProtocol(items, "error"), selection, labels, digests, listed)
    digests["train"][:] = 999
    with pytest.raises(UsageError, match=r"and 20 in training .*too good"):
        audit(protocol, selection, labels, digests, listed)


def test_items_that_query_each_other_are_no_training_set_of_methods_that_learn_from_labels() -> None:
    data = dataset()
    protocol = LeaveOneOutProtocol("all")
    selection = protocol.select(data, 0, None, None)
    with pytest.raises(UsageError, match=r"80 of 80 queries are in training, .*: expected protocol\.items=query"):
        check_overlap(protocol, selection, "labels")
    check_overlap(protocol, selection, "none")
    apart = LeaveOneOutProtocol("query")
    check_overlap(apart, apart.select(data, 0, None, None), "labels")
    allowed = LeaveOneOutProtocol("all", allow_leak=True)
    assert audit(allowed, selection, data.labels, no_digests(selection), None, "labels")["leak"] is True


def test_a_query_that_is_left_out_of_its_ranking_under_another_number_is_no_copy_but_itself() -> None:
    data = dataset()
    protocol = SplitProtocol("error", False)
    selection = protocol.select(data, 0, None, None)
    digests = no_digests(selection)
    digests["queries"][:] = digests["gallery"][:20]
    listed = listed_pairs(np.arange(20), np.arange(20), np.full(20, -1), 20)
    report = audit(protocol, selection, data.labels, digests, listed)
    assert (report["exact_duplicates"], report["exact_duplicates_train"], report["leak"]) == (0, 0, False)
    assert (report["query_gallery_overlap"], report["query_train_overlap"]) == (20, 20)
    digests["gallery"][30] = digests["queries"][4]
    with pytest.raises(UsageError, match="1 of 20 queries have an exact copy in the gallery and 0 in training"):
        audit(protocol, selection, data.labels, digests, listed)
