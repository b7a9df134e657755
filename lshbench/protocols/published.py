"""Protocols of the literature whose three sets are published lists: their sizes are checked, or sets of them drawn."""

from __future__ import annotations

import logging

import numpy as np

from lshbench.data.base import Dataset
from lshbench.data.subset import balanced_rows
from lshbench.errors import UsageError, wrong_value
from lshbench.protocols.splits import EvaluationProtocol, Selection, refuse_unlabelled

log = logging.getLogger(__name__)


class PublishedProtocol(EvaluationProtocol):
    """Queries, training set and database of the sizes that papers state.

    A data set that brings all three (``dataset=lists`` with ``dataset.train``, ``dataset.train_split``) is taken as it
    is and its sizes are checked.  Of any other, queries and training items are drawn from both splits together: sets
    of the same sizes, though not the published ones.

    Args:
        queries: how many queries there are.
        train: how many training items.
        gallery: how many items the database has, or the numbers in use; None where none is known.
        classes: how many classes labels tell apart.
        by_class: whether draws are balanced over classes; else they are plainly random.
        train_in_gallery: whether training items that are drawn stay in the gallery.
        labelled_only: whether items without any label are left out of what is drawn from.
        definition: the figure that is reported, by its key in ``definitions``.
        counts: ``error`` stops at other numbers, ``report`` goes on and names them.
    """

    def __init__(
        self,
        queries: int,
        train: int,
        gallery: int | list[int] | None,
        classes: int,
        by_class: bool,
        train_in_gallery: bool,
        labelled_only: bool,
        definition: str,
        counts: str = "error",
        duplicates: str = "report",
        allow_leak: bool = False,
    ) -> None:
        super().__init__(duplicates, allow_leak)
        for key, value, least in (("queries", queries, 1), ("train", train, 1), ("classes", classes, 2)):
            if value < least:
                raise wrong_value(f"protocol.{key}", value, f"at least {least}")
        self.accepted = [] if gallery is None else [gallery] if isinstance(gallery, int) else list(gallery)
        if not all(isinstance(count, int) and count > 0 for count in self.accepted):
            raise wrong_value("protocol.gallery", gallery, "a number of items, a list of them, or null")
        if counts not in ("error", "report"):
            raise wrong_value("protocol.counts", counts, "error or report")
        self.queries, self.train, self.classes = queries, train, classes
        self.by_class, self.train_in_gallery, self.labelled_only = by_class, train_in_gallery, labelled_only
        self.definition, self.counts = definition, counts

    def draw(self, labels: np.ndarray, from_gallery: np.ndarray, from_query: np.ndarray, seed: int) -> Selection:
        items = np.union1d(from_gallery, from_query)
        if self.labelled_only and labels.ndim == 2:
            labelled = labels[items].any(axis=1)
            if not labelled.all():
                log.info("%d of %d items have no label and are left out", int((~labelled).sum()), len(items))
            items = items[labelled]
        if len(items) <= self.queries + self.train:
            needed = f"{self.queries:,} queries, {self.train:,} training items and a database"
            raise UsageError(f"protocol: {len(items):,} items are too few for {needed}")
        queries = self._draw(labels, items, self.queries, [seed, 0x9B1])
        rest = np.setdiff1d(items, queries)
        train = self._draw(labels, rest, self.train, [seed, 0x9B2])
        log.warning(
            "queries and training items are drawn by the seed: sets of the published sizes, not the published lists, "
            "which dataset=lists takes with dataset.gallery, dataset.queries and dataset.train"
        )
        return Selection(queries, rest if self.train_in_gallery else np.setdiff1d(rest, train), train)

    def _draw(self, labels: np.ndarray, items: np.ndarray, count: int, seed: list[int]) -> np.ndarray:
        generator = np.random.default_rng(seed)
        if self.by_class:
            return items[balanced_rows(labels[items], count, int(generator.integers(2**31)))]
        return np.sort(generator.choice(items, count, replace=False))

    def propose(self, dataset: Dataset, seed: int) -> Selection:
        labels = dataset.labels
        refuse_unlabelled(labels, "is one of labelled items")
        if dataset.train_items is None:
            selection = self.draw(labels, dataset.gallery_items, dataset.query_items, seed)
        else:
            selection = Selection(dataset.query_items, dataset.gallery_items, dataset.train_items)
        self._check_counts(selection, labels)
        return selection

    def _check_counts(self, selection: Selection, labels: np.ndarray) -> None:
        """Compare the sizes of the three sets, and the number of classes, with the published ones."""
        classes = labels.shape[1] if labels.ndim == 2 else len(np.unique(labels[selection.items()]))
        found = {
            "queries": (len(selection.queries), [self.queries]),
            "training items": (len(selection.train), [self.train]),
            "database items": (len(selection.gallery), self.accepted),
            "classes": (classes, [self.classes]),
        }
        wrong = [
            f"{there:,} {what} in place of {' or '.join(f'{count:,}' for count in published)}"
            for what, (there, published) in found.items()
            if published and there not in published
        ]
        if not wrong:
            return
        if self.counts == "error":
            raise UsageError(
                f"protocol: not the sizes that are published: {', '.join(wrong)}; expected the published lists, or "
                "protocol.counts=report, which goes on with these"
            )
        log.warning("not the sizes that are published: %s", ", ".join(wrong))
