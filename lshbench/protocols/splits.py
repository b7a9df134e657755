"""Evaluation protocols: which items of a data set are queries, gallery and training set.

Items are numbered as in :class:`lshbench.data.base.Dataset`: the gallery split first, then the query split.  A protocol
is a function of the labels and the seed alone.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lshbench.data.base import Dataset
from lshbench.data.subset import balanced_rows
from lshbench.errors import UsageError, wrong_value


@dataclass(frozen=True)
class Selection:
    """The items of a run by role: item numbers, each int64, ascending and without repeats."""

    queries: np.ndarray
    gallery: np.ndarray
    train: np.ndarray

    def items(self) -> np.ndarray:
        """Return the items of all roles, int64, ascending."""
        return np.unique(np.concatenate([self.queries, self.gallery, self.train]))

    def hash(self) -> str:
        """Return ``sha256:...`` of the three lists."""
        digest = hashlib.sha256()
        for items in (self.queries, self.gallery, self.train):
            digest.update(len(items).to_bytes(8, "little"))
            digest.update(np.ascontiguousarray(items, "<i8").tobytes())
        return f"sha256:{digest.hexdigest()}"


class EvaluationProtocol(ABC):
    """Interface of an evaluation protocol (``protocol=``).

    Args:
        duplicates: ``report`` counts queries whose exact content is in the gallery, ``error`` stops the run.
        allow_leak: whether a run may go on with queries in the gallery or in training (its figures carry a flag).

    Attributes:
        leave_one_out: whether queries that are in the gallery are left out of their own rankings.
    """

    leave_one_out: ClassVar[bool] = False

    def __init__(self, duplicates: str, allow_leak: bool) -> None:
        if duplicates not in ("report", "error"):
            raise wrong_value("protocol.duplicates", duplicates, "report or error")
        self.duplicates = duplicates
        self.allow_leak = allow_leak

    @abstractmethod
    def draw(self, labels: np.ndarray, from_gallery: np.ndarray, from_query: np.ndarray, seed: int) -> Selection:
        """Return queries, gallery and training set, before any limit on their sizes.

        Args:
            labels: labels of all items, int64 ``(n,)`` or bool ``(n, classes)``.
            from_gallery: item numbers of the gallery split.
            from_query: item numbers of the query split.
            seed: decides the draw.
        """

    def select(self, dataset: Dataset, seed: int, max_gallery: int | None, max_queries: int | None) -> Selection:
        """Draw the items of a run, and limit gallery and queries to class-balanced subsets.

        A training set that is the gallery, or part of it, shrinks with it; one that lies outside is left as it is.
        """
        labels = dataset.labels
        drawn = self.draw(labels, dataset.gallery_items, dataset.query_items, seed)
        gallery = _limit(drawn.gallery, labels, max_gallery, seed)
        queries = _limit(drawn.queries, labels, max_queries, seed)
        inside = np.isin(drawn.train, drawn.gallery, assume_unique=True)
        train = np.sort(np.concatenate([np.intersect1d(drawn.train[inside], gallery), drawn.train[~inside]]))
        if len(train) == 0:
            raise UsageError(f"dataset.max_gallery={max_gallery} leaves nothing to train on: expected more")
        return Selection(queries, gallery, train)


def _limit(items: np.ndarray, labels: np.ndarray, count: int | None, seed: int) -> np.ndarray:
    if count is None or count >= len(items):
        return items
    return items[balanced_rows(labels[items], count, seed)]


class SplitProtocol(EvaluationProtocol):
    """Queries and gallery as the data set splits them; training on the gallery."""

    def draw(self, labels: np.ndarray, from_gallery: np.ndarray, from_query: np.ndarray, seed: int) -> Selection:
        return Selection(from_query, from_gallery, from_gallery)


class PooledProtocol(EvaluationProtocol):
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


class UnseenClassesProtocol(EvaluationProtocol):
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
            expected = f"a share that leaves at least 2 of the {len(classes)} classes on either side"
            raise wrong_value("protocol.held_out", self.held_out, expected)
        held_out = np.random.default_rng([seed, 0x75EE]).permutation(classes)[:count]
        unseen = np.isin(labels, held_out)
        return Selection(
            from_query[unseen[from_query]], from_gallery[unseen[from_gallery]], from_gallery[~unseen[from_gallery]]
        )


class LeaveOneOutProtocol(EvaluationProtocol):
    """Every item queries all the others; itself is left out of its ranking by its number, whatever its distance.

    Args:
        items: ``all`` items of both splits are queries, gallery and training set; ``query``: those of the query split
            are queries and gallery, and training is on the gallery split.
    """

    leave_one_out = True

    def __init__(self, items: str = "all", duplicates: str = "report", allow_leak: bool = False) -> None:
        super().__init__(duplicates, allow_leak)
        if items not in ("all", "query"):
            raise wrong_value("protocol.items", items, "all or query")
        self.items = items

    def draw(self, labels: np.ndarray, from_gallery: np.ndarray, from_query: np.ndarray, seed: int) -> Selection:
        if self.items == "query":
            return Selection(from_query, from_query, from_gallery)
        items = np.union1d(from_gallery, from_query)
        return Selection(items, items, items)


def _require_single_label(labels: np.ndarray, name: str) -> None:
    if labels.ndim != 1:
        raise UsageError(f"protocol={name} draws by class and needs one label an item; use protocol=full")
