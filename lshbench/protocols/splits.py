"""Evaluation protocols: which items of a data set are queries, gallery and training set.

Items are numbered as in :class:`lshbench.data.base.Dataset`: the gallery split first, then the query split.  A protocol
is a function of the labels and the seed alone.
"""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from lshbench.data.base import Dataset
from lshbench.data.subset import balanced_rows
from lshbench.errors import UsageError, wrong_value
from lshbench.types import is_unlabelled

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Selection:
    """The items of a run by role: item numbers, each int64, ascending and without repeats."""

    queries: np.ndarray
    gallery: np.ndarray
    train: np.ndarray

    def items(self) -> np.ndarray:
        """Return the items of all roles, int64, ascending."""
        roles = (self.queries, self.gallery, self.train)
        taken = np.zeros(1 + max(int(items.max(initial=-1)) for items in roles), bool)
        for items in roles:
            taken[items] = True
        return np.flatnonzero(taken)

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
        definition: the figure that the literature reports of it, by its key in ``definitions``; None if there is none.
    """

    leave_one_out: ClassVar[bool] = False
    definition: str | None = None

    def __init__(self, duplicates: str, allow_leak: bool) -> None:
        if duplicates not in ("report", "error"):
            raise wrong_value("protocol.duplicates", duplicates, "report or error")
        self.duplicates = duplicates
        self.allow_leak = allow_leak

    def arrange(self, dataset: Dataset) -> Dataset:
        """Return the data set whose items the protocol goes by: the same one, unless it makes items of it.

        Raises:
            UsageError: the data set is not what the protocol needs.
        """
        return dataset

    @abstractmethod
    def draw(self, labels: np.ndarray, from_gallery: np.ndarray, from_query: np.ndarray, seed: int) -> Selection:
        """Return queries, gallery and training set, before any limit on their sizes.

        Args:
            labels: labels of all items, int64 ``(n,)`` or bool ``(n, classes)``.
            from_gallery: item numbers of the gallery split.
            from_query: item numbers of the query split.
            seed: decides the draw.
        """

    def train_on(self, drawn: Selection, given: np.ndarray, labels: np.ndarray) -> Selection:
        """Return what was drawn with the data set's own training set in place of the training items.

        Args:
            drawn: what :meth:`draw` returned.
            given: item numbers of the data set's own training set, ascending.
            labels: labels of all items.

        Raises:
            UsageError: the protocol draws a training set of its own.
        """
        return replace(drawn, train=given)

    def propose(self, dataset: Dataset, seed: int) -> Selection:
        """Return the items of a run by role, before any limit on their numbers.

        Raises:
            UsageError: the data set is not what the protocol needs.
        """
        drawn = self.draw(dataset.labels, dataset.gallery_items, dataset.query_items, seed)
        given = dataset.train_items
        return drawn if given is None else self.train_on(drawn, given, dataset.labels)

    def select(self, dataset: Dataset, seed: int, max_gallery: int | None, max_queries: int | None) -> Selection:
        """Draw the items of a run, and limit gallery and queries to class-balanced subsets.

        A training set that is the gallery, or part of it, shrinks with it; one that lies outside is left as it is.
        """
        labels = dataset.labels
        drawn = self.propose(dataset, seed)
        gallery = _limit(drawn.gallery, labels, max_gallery, seed)
        queries = _limit(drawn.queries, labels, max_queries, seed)
        inside = np.isin(drawn.train, drawn.gallery, assume_unique=True)
        kept = np.intersect1d(drawn.train[inside], gallery, assume_unique=True)
        train = np.sort(np.concatenate([kept, drawn.train[~inside]]))
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
        refuse_unlabelled(labels, "draws by class")
        items = np.union1d(from_gallery, from_query)
        generator = np.random.default_rng([seed, 0x9001])
        queries, train = draw_by_class(labels, items, self.queries_per_class, self.train_per_class, generator)
        gallery = np.setdiff1d(items, queries)
        if not self.train_in_gallery:
            gallery = np.setdiff1d(gallery, train)
        return Selection(queries, gallery, train)

    def train_on(self, drawn: Selection, given: np.ndarray, labels: np.ndarray) -> Selection:
        raise UsageError(
            "protocol: it draws a training set of its own, and the data set brings one: expected protocol=full, or "
            "the data set without dataset.train and dataset.train_split"
        )


def draw_by_class(
    labels: np.ndarray, items: np.ndarray, queries: int, train: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return so many queries and training items of every class, item numbers, ascending; no item is drawn twice.

    Of several labels an item, the rarest class draws first, from the items that have it and were not drawn for
    another; common classes have enough others.

    Raises:
        UsageError: a class has too few items.
    """
    by_class = _members(labels, items)
    if labels.ndim == 2:
        by_class.sort(key=lambda pair: len(pair[1]))
    taken = np.zeros(len(labels), bool)
    drawn: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for label, members in by_class:
        free = generator.permutation(members[~taken[members]])
        if len(free) <= queries + train:
            others = "" if labels.ndim == 1 else " that no rarer class has drawn"
            raise UsageError(
                f"protocol.queries_per_class={queries} and protocol.train_per_class={train} need more than their sum "
                f"of every class, but class {label} has {len(free)} items{others}"
            )
        drawn[0].append(free[:queries])
        drawn[1].append(free[queries : queries + train])
        taken[free[: queries + train]] = True
    first, second = (np.sort(np.concatenate(part)) for part in drawn)
    return first, second


def _members(labels: np.ndarray, items: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Return every class that some of the items have, and those items."""
    if labels.ndim == 1:
        return [(int(label), items[labels[items] == label]) for label in np.unique(labels[items])]
    present = np.flatnonzero(labels[items].any(axis=0))
    return [(int(label), items[labels[items, label]]) for label in present]


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
        refuse_unlabelled(labels, "holds out classes")
        classes = classes_of(labels)
        count = round(self.held_out * len(classes))
        if not 2 <= count <= len(classes) - 2:
            expected = f"a share that leaves at least 2 of the {len(classes)} classes on either side"
            raise wrong_value("protocol.held_out", self.held_out, expected)
        held_out = np.random.default_rng([seed, 0x75EE]).permutation(classes)[:count]
        seen, unseen = sides_of(labels, held_out)
        if mixed := int((~seen & ~unseen).sum()):
            log.warning(
                "protocol.held_out=%g: %d of %d items have classes of both sides, or none, and are left out",
                self.held_out, mixed, len(labels),
            )  # fmt: skip
        drawn = Selection(
            from_query[unseen[from_query]], from_gallery[unseen[from_gallery]], from_gallery[seen[from_gallery]]
        )
        for role, items in vars(drawn).items():
            if not len(items):
                expected = f"another share: of {role} no item has classes of one side only"
                raise wrong_value("protocol.held_out", self.held_out, expected)
        return drawn

    def train_on(self, drawn: Selection, given: np.ndarray, labels: np.ndarray) -> Selection:
        held_out = classes_of(labels[np.concatenate([drawn.queries, drawn.gallery])])
        seen = sides_of(labels, held_out)[0]
        return replace(drawn, train=given[seen[given]])


def classes_of(labels: np.ndarray) -> np.ndarray:
    """Return the classes that some items have, int64, ascending; labels int64 ``(n,)`` or bool ``(n, classes)``."""
    return np.unique(labels) if labels.ndim == 1 else np.flatnonzero(labels.any(axis=0))


def sides_of(labels: np.ndarray, held_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which items have no held-out class, and which have no other, bool ``(n,)`` each; both have a class.

    Args:
        labels: int64 ``(n,)`` or bool ``(n, classes)``.
        held_out: numbers of classes.
    """
    if labels.ndim == 1:
        unseen = np.isin(labels, held_out)
        return ~unseen, unseen
    without = np.ones(labels.shape[1], bool)
    without[held_out] = False
    has_unseen = np.asarray(labels[:, ~without].any(axis=1))
    has_seen = np.asarray(labels[:, without].any(axis=1))
    return has_seen & ~has_unseen, has_unseen & ~has_seen


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


def refuse_unlabelled(labels: np.ndarray, what: str) -> None:
    """Refuse items without labels where a protocol needs them.

    Raises:
        UsageError: there are no labels.
    """
    if is_unlabelled(labels):
        raise UsageError(f"protocol: it {what}, and the data set has no labels: expected protocol=full")
