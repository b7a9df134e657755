"""Protocols: who is query, gallery and training, and the audit that goes with every figure.

Items are numbered as in :class:`lshbench.data.base.Dataset`: the gallery split first, then the query split.  A protocol
is a function of the labels and the seed alone.
"""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from lshbench.data.base import Dataset
from lshbench.data.subset import balanced_rows
from lshbench.errors import UsageError, wrong_value

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Selection:
    """Item numbers, each int64, ascending and without repeats."""

    queries: np.ndarray
    gallery: np.ndarray
    train: np.ndarray

    def items(self) -> np.ndarray:
        """Return all items that a run needs, int64, ascending."""
        return np.unique(np.concatenate([self.queries, self.gallery, self.train]))

    def hash(self) -> str:
        """Return ``sha256:...`` of the three lists."""
        digest = hashlib.sha256()
        for items in (self.queries, self.gallery, self.train):
            digest.update(len(items).to_bytes(8, "little"))
            digest.update(np.ascontiguousarray(items, "<i8").tobytes())
        return f"sha256:{digest.hexdigest()}"


class Protocol(ABC):
    """A ``protocol=`` option.

    Args:
        duplicates: ``report`` counts queries whose exact content is in the gallery, ``error`` stops the run.
        allow_leak: whether a run may go on with queries in the gallery or in training (its figures carry a flag).
    """

    def __init__(self, duplicates: str, allow_leak: bool) -> None:
        if duplicates not in ("report", "error"):
            raise wrong_value("protocol.duplicates", duplicates, "report or error")
        self.duplicates = duplicates
        self.allow_leak = allow_leak

    @abstractmethod
    def draw(self, labels: np.ndarray, from_gallery: np.ndarray, from_query: np.ndarray, seed: int) -> Selection:
        """Return who is who before any limit on numbers.

        Args:
            labels: labels of all items, int64 ``(n,)`` or bool ``(n, classes)``.
            from_gallery: item numbers of the gallery split.
            from_query: item numbers of the query split.
            seed: decides the draw.
        """

    def select(self, dataset: Dataset, seed: int, max_gallery: int | None, max_queries: int | None) -> Selection:
        """Return the items of a run: :meth:`draw`, then class-balanced subsets of gallery and queries.

        A training set that is the gallery, or part of it, shrinks with it; one that lies outside is left as it is.
        """
        labels, from_gallery, from_query = item_labels(dataset)
        drawn = self.draw(labels, from_gallery, from_query, seed)
        gallery = _limit(drawn.gallery, labels, max_gallery, seed)
        queries = _limit(drawn.queries, labels, max_queries, seed)
        inside = np.isin(drawn.train, drawn.gallery, assume_unique=True)
        train = np.sort(np.concatenate([np.intersect1d(drawn.train[inside], gallery), drawn.train[~inside]]))
        if len(train) == 0:
            raise UsageError(f"dataset.max_gallery={max_gallery} leaves nothing to train on: expected more")
        return Selection(queries, gallery, train)


def item_labels(dataset: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return all items' labels, and the item numbers of the gallery split and of the query split.

    Where both are the same split of the source, an item has one number.
    """
    gallery = np.arange(len(dataset.gallery))
    if dataset.same_split:
        return dataset.gallery.labels, gallery, gallery
    labels = np.concatenate([dataset.gallery.labels, dataset.query.labels])
    return labels, gallery, len(gallery) + np.arange(len(dataset.query))


def _limit(items: np.ndarray, labels: np.ndarray, count: int | None, seed: int) -> np.ndarray:
    if count is None or count >= len(items):
        return items
    return items[balanced_rows(labels[items], count, seed)]


class SplitProtocol(Protocol):
    """Queries and gallery as the data set splits them; training on the gallery."""

    def draw(self, labels: np.ndarray, from_gallery: np.ndarray, from_query: np.ndarray, seed: int) -> Selection:
        return Selection(from_query, from_gallery, from_gallery)


class PooledProtocol(Protocol):
    """Both splits together: some queries a class, some training items a class, the rest is gallery.

    The splits ``cifar10`` (training outside the gallery) and ``cifar10-1`` (inside) of the deep-hashing literature.

    Args:
        queries_per_class: queries of each class.
        train_per_class: training items of each class.
        train_in_gallery: whether training items are in the gallery too.
    """

    def __init__(
        self,
        queries_per_class: int,
        train_per_class: int,
        train_in_gallery: bool,
        duplicates: str = "report",
        allow_leak: bool = False,
    ) -> None:
        super().__init__(duplicates, allow_leak)
        for key, value in (("queries_per_class", queries_per_class), ("train_per_class", train_per_class)):
            if value < 1:
                raise wrong_value(f"protocol.{key}", value, "at least 1")
        self.queries_per_class = queries_per_class
        self.train_per_class = train_per_class
        self.train_in_gallery = train_in_gallery

    def draw(self, labels: np.ndarray, from_gallery: np.ndarray, from_query: np.ndarray, seed: int) -> Selection:
        _require_single_label(labels, "cifar10 and cifar10_1")
        items = np.union1d(from_gallery, from_query)
        generator = np.random.default_rng([seed, 0x9001])
        queries, train, rest = [], [], []
        for label in np.unique(labels[items]):
            members = generator.permutation(items[labels[items] == label])
            if len(members) <= self.queries_per_class + self.train_per_class:
                raise UsageError(
                    f"protocol.queries_per_class={self.queries_per_class} and "
                    f"protocol.train_per_class={self.train_per_class} need more than their sum of every class, "
                    f"but class {label} has {len(members)} items"
                )
            stop = self.queries_per_class + self.train_per_class
            queries.append(members[: self.queries_per_class])
            train.append(members[self.queries_per_class : stop])
            rest.append(members[self.queries_per_class if self.train_in_gallery else stop :])
        return Selection(*(np.sort(np.concatenate(part)) for part in (queries, rest, train)))


class UnseenClassesProtocol(Protocol):
    """Train on some classes; queries and gallery are the items of the others (arXiv 1609.06753).

    Args:
        held_out: the share of classes that training never sees, between 0 and 1.
    """

    def __init__(self, held_out: float, duplicates: str = "report", allow_leak: bool = False) -> None:
        super().__init__(duplicates, allow_leak)
        if not 0 < held_out < 1:
            raise wrong_value("protocol.held_out", held_out, "a share of the classes between 0 and 1")
        self.held_out = held_out

    def draw(self, labels: np.ndarray, from_gallery: np.ndarray, from_query: np.ndarray, seed: int) -> Selection:
        _require_single_label(labels, "unseen_classes")
        classes = np.unique(labels)
        count = round(self.held_out * len(classes))
        if not 2 <= count <= len(classes) - 2:
            raise wrong_value(
                "protocol.held_out",
                self.held_out,
                f"a share that leaves at least 2 of the {len(classes)} classes on either side",
            )
        held_out = np.random.default_rng([seed, 0x75EE]).permutation(classes)[:count]
        unseen = np.isin(labels, held_out)
        return Selection(
            from_query[unseen[from_query]],
            from_gallery[unseen[from_gallery]],
            from_gallery[~unseen[from_gallery]],
        )


def _require_single_label(labels: np.ndarray, name: str) -> None:
    if labels.ndim != 1:
        raise UsageError(f"protocol={name} draws by class and needs one label an item; use protocol=full")


LEAKING_SHARE = 0.05
LEAKING_COPIES = 5
"""From this share, and this many, queries with exact copies elsewhere are a leak."""

_GO_ON = "(protocol.allow_leak=true goes on, and marks every figure)"


def check_overlap(protocol: Protocol, selection: Selection) -> tuple[np.ndarray, np.ndarray]:
    """Return which queries are in the gallery, and which in training, bool ``(q,)`` each.

    Raises:
        UsageError: some are, and the protocol doesn't allow it.
    """
    in_gallery = np.isin(selection.queries, selection.gallery)
    in_train = np.isin(selection.queries, selection.train)
    if (in_gallery.any() or in_train.any()) and not protocol.allow_leak:
        raise UsageError(
            f"{int(in_gallery.sum())} of {len(in_gallery)} queries are in the gallery and {int(in_train.sum())} in "
            "training, so the figures would be too good: choose another dataset.query_split or "
            f"dataset.gallery_split {_GO_ON}"
        )
    return in_gallery, in_train


def audit(
    protocol: Protocol,
    selection: Selection,
    labels: np.ndarray,
    digests: dict[str, np.ndarray],
) -> dict[str, Any]:
    """Return what has to be known to trust a figure, and stop a run that leaks.

    Args:
        protocol: says what is allowed.
        selection: who is who.
        labels: labels of all items.
        digests: of ``queries``, ``gallery`` and ``train``: uint64 hashes of each item's content.

    Returns:
        ``query_gallery_overlap``, ``query_train_overlap`` and ``train_gallery_overlap``: items in both;
        ``exact_duplicates`` and ``exact_duplicates_train``: queries whose content is that of another item in the
        gallery or in training; ``classes``: counts of items a class; ``split_hash``; ``leak``: whether queries are
        in the gallery or in training, themselves or, for more than :data:`LEAKING_SHARE` of them, as copies.

    Raises:
        UsageError: queries are in the gallery or in training, or duplicates where they are not allowed.
    """
    in_gallery, in_train = check_overlap(protocol, selection)
    # A query that is itself in the gallery is an overlap; counted as a duplicate too, it would be counted twice.
    duplicates = np.isin(digests["queries"], digests["gallery"]) & ~in_gallery
    duplicates_train = np.isin(digests["queries"], digests["train"]) & ~in_train
    copied = duplicates | duplicates_train
    # A few copies are a data set's own; many are queries that were put among the others.
    copies_leak = int(copied.sum()) >= LEAKING_COPIES and copied.mean() > LEAKING_SHARE
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
    return {
        "split_hash": selection.hash(),
        "query_gallery_overlap": int(in_gallery.sum()),
        "query_train_overlap": int(in_train.sum()),
        "train_gallery_overlap": int(np.isin(selection.train, selection.gallery).sum()),
        "exact_duplicates": int(duplicates.sum()),
        "exact_duplicates_train": int(duplicates_train.sum()),
        "leak": bool(in_gallery.any() or in_train.any() or copies_leak),
        "classes": {
            name: _class_counts(labels[items])
            for name, items in (
                ("queries", selection.queries),
                ("gallery", selection.gallery),
                ("train", selection.train),
            )
        },
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
