"""The audit of a run: queries that are in the gallery or in training, themselves or as exact copies."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from lshbench.errors import UsageError
from lshbench.protocols.splits import EvaluationProtocol, Selection
from lshbench.types import Listed, Supervision, is_unlabelled

log = logging.getLogger(__name__)

LEAKING_SHARE = 0.05
LEAKING_COPIES = 5
"""From this share, and this many, queries with exact copies elsewhere are a leak."""

NEAR = 0.999
"""Cosine of features from which a gallery item is a near copy of a query."""
ROWS = 8192
"""Queries whose nearest items are compared at a time."""
PAIRS = 10
"""Pairs of labels that are named."""

_GO_ON = "(protocol.allow_leak=true goes on, and marks every figure)"


def check_overlap(
    protocol: EvaluationProtocol, selection: Selection, supervision: Supervision
) -> tuple[np.ndarray, np.ndarray]:
    """Return which queries are in the gallery, and which in training, bool ``(q,)`` each.

    Args:
        protocol: says whether queries are left out of their own rankings, and whether a leak is allowed.
        selection: the items by role.
        supervision: what the method learns from.

    Raises:
        UsageError: some are, and the protocol neither leaves them out of their own rankings nor allows it; or the
            method would learn from the labels of queries.
    """
    in_gallery = np.isin(selection.queries, selection.gallery)
    in_train = np.isin(selection.queries, selection.train)
    if protocol.leave_one_out:
        if supervision == "labels" and in_train.any() and not protocol.allow_leak:
            raise UsageError(
                f"{int(in_train.sum())} of {len(in_train)} queries are in training, and the method learns from their "
                "labels: expected protocol.items=query, which trains on the data set's other split, or a method that "
                f"needs no labels {_GO_ON}"
            )
        return in_gallery, in_train
    if (in_gallery.any() or in_train.any()) and not protocol.allow_leak:
        raise UsageError(
            f"{int(in_gallery.sum())} of {len(in_gallery)} queries are in the gallery and {int(in_train.sum())} in "
            "training, so the figures would be too good: choose another dataset.query_split or "
            f"dataset.gallery_split {_GO_ON}"
        )
    return in_gallery, in_train


def audit(
    protocol: EvaluationProtocol,
    selection: Selection,
    labels: np.ndarray,
    digests: dict[str, np.ndarray],
    listed: Listed | None = None,
    supervision: Supervision = "none",
) -> dict[str, Any]:
    """Return the overlap, duplicates and class counts of a run's items; stop a run whose queries leak.

    Args:
        protocol: whether duplicates and leaks stop the run.
        selection: the items by role.
        labels: labels of all items.
        digests: for ``queries``, ``gallery`` and ``train``, uint64 hashes of each item's content.
        listed: rows that are left out of rankings, if any: of a query's copies in the gallery, they count as itself.
        supervision: what the method learns from.

    Returns:
        ``query_gallery_overlap``, ``query_train_overlap`` and ``train_gallery_overlap``: items in both;
        ``exact_duplicates`` and ``exact_duplicates_train``: queries whose content is that of another item in the
        gallery or in training; ``train_gallery_copies``: training items outside the gallery with the content of one
        inside; ``labels``: where items may have several, how many they have and which occur together; ``classes``:
        counts of items a class; ``split_hash``; ``leave_one_out``: whether queries in the gallery are left out of their
        own rankings; ``leak``: whether queries are in the gallery or in training, themselves or, for more than
        :data:`LEAKING_SHARE` of them, as copies.  Where queries are left out of their own rankings, neither they
        themselves nor copies of them in the gallery are a leak: the gallery is the queries' own set, copies included.
        That their labels are learnt from is one.

    Raises:
        UsageError: queries are in the gallery or in training, or duplicates where they are not allowed.
    """
    in_gallery, in_train = check_overlap(protocol, selection, supervision)
    itself, itself_in_train = _left_out_copies(listed, selection, digests)
    duplicates = _copies(digests["queries"], digests["gallery"]) > itself
    # A query that is itself in the gallery is an overlap; counted as a duplicate too, it would be counted twice.
    if not protocol.leave_one_out:
        duplicates &= ~in_gallery
    duplicates_train = np.isin(digests["queries"], digests["train"]) & ~in_train & ~itself_in_train
    overlaps = bool(in_gallery.any() or in_train.any())
    learnt = supervision == "labels" and bool(in_train.any())
    # Under another number, too, an item that is left out of its own ranking is the query itself.
    in_gallery, in_train = in_gallery | (itself > 0), in_train | itself_in_train
    copied = duplicates | duplicates_train
    # A few copies are a data set's own; many are queries that were put among the others.  Of a set that queries itself
    # all copies are its own, but for those in a training set apart.
    leaking = duplicates_train if protocol.leave_one_out else copied
    copies_leak = bool(leaking.sum() >= LEAKING_COPIES and leaking.mean() > LEAKING_SHARE)
    if copied.any():
        first = int(selection.queries[np.argmax(copied)])
        message = (
            f"{int(duplicates.sum())} of {len(copied)} queries have an exact copy in the gallery and "
            f"{int(duplicates_train.sum())} in training (the first is item {first})"
        )
        if protocol.duplicates == "error":
            raise UsageError(f"{message}; protocol.duplicates=report goes on and counts them")
        if copies_leak and not protocol.allow_leak:
            raise UsageError(f"{message}, so the figures would be too good {_GO_ON}")
        log.warning(message)
    roles = {"queries": selection.queries, "gallery": selection.gallery, "train": selection.train}
    in_both = np.isin(selection.train, selection.gallery)
    several = labels.ndim == 2 and not is_unlabelled(labels)
    return {
        "split_hash": selection.hash(),
        "query_gallery_overlap": int(in_gallery.sum()),
        "query_train_overlap": int(in_train.sum()),
        "train_gallery_overlap": int(in_both.sum()),
        "exact_duplicates": int(duplicates.sum()),
        "exact_duplicates_train": int(duplicates_train.sum()),
        "train_gallery_copies": int((np.isin(digests["train"], digests["gallery"]) & ~in_both).sum()),
        "labels": {role: _label_counts(labels[items]) for role, items in roles.items()} if several else None,
        "leave_one_out": protocol.leave_one_out,
        "leak": copies_leak or (learnt if protocol.leave_one_out else overlaps),
        "classes": {role: _class_counts(labels[items]) for role, items in roles.items()},
    }


def _left_out_copies(
    listed: Listed | None, selection: Selection, digests: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return how many gallery items with a query's content are left out of its ranking, int64 ``(q,)``, and whether
    one of them is in training, bool ``(q,)``.
    """
    count = len(digests["queries"])
    if listed is None:
        return np.zeros(count, np.int64), np.zeros(count, np.bool_)
    owners, rows = np.repeat(np.arange(count), np.diff(listed.offsets))[listed.left_out], listed.rows[listed.left_out]
    same = digests["queries"][owners] == digests["gallery"][rows]
    owners, rows = owners[same], rows[same]
    in_train = np.isin(selection.gallery[rows], selection.train)
    return np.bincount(owners, minlength=count), np.bincount(owners[in_train], minlength=count) > 0


def _copies(wanted: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Return how often each of some hashes is among others, int64 ``(q,)``."""
    values, counts = np.unique(among, return_counts=True)
    places = np.minimum(np.searchsorted(values, wanted), len(values) - 1)
    return np.where(values[places] == wanted, counts[places], 0)


def near_copies(queries: np.ndarray, gallery: np.ndarray, nearest: np.ndarray) -> int:
    """Return how many queries have a gallery item at :data:`NEAR` or more by cosine, exact copies included.

    Args:
        queries: float32 ``(q, d)``.
        gallery: float32 ``(n, d)``.
        nearest: int64 ``(q,)``, the gallery row nearest to each query by cosine; -1 for none.
    """
    count = 0
    for start in range(0, len(queries), ROWS):
        rows = nearest[start : start + ROWS]
        asked = queries[start : start + ROWS][rows >= 0].astype(np.float64)
        found = gallery[rows[rows >= 0]].astype(np.float64)
        lengths = np.linalg.norm(asked, axis=1) * np.linalg.norm(found, axis=1)
        count += int(((lengths > 0) & ((asked * found).sum(axis=1) >= NEAR * lengths)).sum())
    return count


def _label_counts(labels: np.ndarray) -> dict[str, Any]:
    """Return how many labels items have, and the pairs of labels that most items have both of."""
    each = labels.sum(axis=1)
    present = labels.astype(np.float32)
    together = np.triu(present.T @ present, 1)
    # Of as many items, the smaller label numbers first.
    order = np.argsort(-together, axis=None, kind="stable")[:PAIRS]
    first, second = np.unravel_index(order, together.shape)
    counts = together[first, second].astype(int)
    return {
        "none": int((each == 0).sum()),
        "several": int((each > 1).sum()),
        "mean": float(each.mean()),
        "most": int(each.max()),
        "pairs": [
            [int(one), int(other), int(count)]
            for one, other, count in zip(first, second, counts, strict=True)
            if count > 0
        ],
    }


def _class_counts(labels: np.ndarray) -> dict[str, float]:
    counts = labels.sum(0) if labels.ndim == 2 else np.unique(labels, return_counts=True)[1]
    counts = counts[counts > 0]
    if not len(counts):  # several labels an item, and none has one
        return {"count": 0, "smallest": 0, "largest": 0, "mean": 0.0}
    return {
        "count": len(counts),
        "smallest": int(counts.min()),
        "largest": int(counts.max()),
        "mean": float(counts.mean()),
    }
