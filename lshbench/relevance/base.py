"""Interface of a rule that says which gallery items are relevant to a query (``relevance=``)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from lshbench.data.base import Dataset
from lshbench.protocols.splits import Selection
from lshbench.protocols.unanswered import Unanswered
from lshbench.types import Features, Listed, Progress, Relevance


@dataclass(frozen=True)
class GroundTruth:
    """What a rule says of a run's queries and gallery.

    Attributes:
        relevance: of the gallery to the queries.
        rule: the rule in words, with what ``auto`` came to.
        neighbors: int64 ``(q, k)``, gallery rows of the true neighbours, nearest first; None where others are relevant.
    """

    relevance: Relevance
    rule: str
    neighbors: np.ndarray | None = None


class RelevanceRule(ABC):
    """Interface of a rule; its constructor takes the option's keys and refuses values that can't be used.

    Attributes:
        needs_labels: whether items have to have labels.
    """

    needs_labels: ClassVar[bool] = False

    @abstractmethod
    def check(self, dataset: Dataset, selection: Selection) -> None:
        """Check that a data set has what the rule goes by.

        Raises:
            UsageError: it has not; says what would be right.
        """

    @abstractmethod
    def unanswered(self, dataset: Dataset, selection: Selection, leave_one_out: bool = False) -> Unanswered:
        """Return the queries to which no gallery item is relevant, as far as is known before features are read.

        Args:
            dataset: opened.
            selection: the items by role.
            leave_one_out: whether queries that are in the gallery are left out of their own rankings.
        """

    @abstractmethod
    def ground_truth(
        self, dataset: Dataset, gallery: Features, queries: Features, own: np.ndarray, cache: Path, progress: Progress
    ) -> GroundTruth:
        """Return what is relevant; no query is to itself.

        Args:
            dataset: the items' own, opened.
            gallery, queries: features, labels and item numbers.
            own: int64 ``(q,)``, the gallery row that is the query itself, which is left out of its ranking; -1 if none.
            cache: the cache folder.
            progress: receives the progress of long work.

        Raises:
            UsageError: what the data set brings is not what it says it is.
        """

    def of_training(self, dataset: Dataset, items: int) -> RelevanceRule | None:
        """Return the rule as it judges training items that stand as queries, or None if it says nothing of these.

        Args:
            dataset: opened.
            items: how many other training items they are looked for among.
        """
        return self


def own_rows(queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Return the gallery row of each query, int64 ``(q,)``, -1 where it is none; item numbers, ascending."""
    rows = np.minimum(np.searchsorted(gallery, queries), len(gallery) - 1)
    return np.where(gallery[rows] == queries, rows, -1)


def without_own(relevance: Relevance, own: np.ndarray) -> Relevance:
    """Return relevance that leaves each query's own gallery row, int64 ``(q,)`` or -1, out of its ranking."""
    is_there = own >= 0
    if not is_there.any():
        return relevance
    query, rows, grades = np.flatnonzero(is_there), own[is_there], np.full(int(is_there.sum()), -1, np.float32)
    if relevance.listed is None:
        return replace(relevance, listed=listed_pairs(query, rows, grades, len(own)))
    listed = relevance.listed
    asked = np.repeat(np.arange(len(listed)), np.diff(listed.offsets))
    others = listed.rows != own[asked]
    made = listed_pairs(
        np.concatenate([asked[others], query]),
        np.concatenate([listed.rows[others], rows]),
        np.concatenate([listed.grades[others], grades]),
        len(own),
    )
    return replace(relevance, listed=replace(made, threshold=listed.threshold, graded=listed.graded))


def listed_pairs(queries: np.ndarray, rows: np.ndarray, grades: np.ndarray, count: int) -> Listed:
    """Return pairs in any order, each once, as the lists of so many queries.

    Args:
        queries, rows: int64 ``(p,)``, rows of the queries and of the gallery.
        grades: ``(p,)``.
    """
    order = np.lexsort((rows, queries))
    offsets = np.searchsorted(queries[order], np.arange(count + 1))
    return Listed(offsets, rows[order], grades[order].astype(np.float32))
