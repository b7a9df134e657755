"""Relevance by labels: a shared one, or all of the query's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from lshbench.data.base import Dataset
from lshbench.errors import UsageError, wrong_value
from lshbench.kernels.labels import LabelTable
from lshbench.protocols.splits import Selection
from lshbench.protocols.unanswered import Unanswered, find_unanswered
from lshbench.relevance.base import GroundTruth, RelevanceRule, without_own
from lshbench.types import Features, Progress, Relevance, is_unlabelled

RULES = {"shared": "a shared label", "subset": "all labels of the query"}


class LabelRule(RelevanceRule):
    """A gallery item is relevant if it shares a label with the query, or if it has all of the query's labels.

    Args:
        kind: ``shared`` or ``subset``, which differ where items have several labels.
    """

    needs_labels = True

    def __init__(self, kind: str = "shared") -> None:
        if kind not in RULES:
            raise wrong_value("relevance.kind", kind, " or ".join(RULES))
        self.kind = kind

    def check(self, dataset: Dataset, selection: Selection) -> None:
        if is_unlabelled(dataset.labels):
            raise UsageError(
                f"relevance=labels: {dataset.name} has no labels; expected relevance=neighbors, or relevance=qrels "
                "for a data set with judged pairs"
            )

    def unanswered(self, dataset: Dataset, selection: Selection, leave_one_out: bool = False) -> Unanswered:
        labels = dataset.labels
        found = find_unanswered(labels, selection, dataset.gallery.class_names, leave_one_out)
        if self.kind == "subset" and labels.ndim == 2:
            pairs = Relevance(labels[selection.queries], labels[selection.gallery], subset=True)
            itself = np.isin(selection.queries, selection.gallery) if leave_one_out else 0
            return replace(found, count=int((LabelTable.from_relevance(pairs).totals <= itself).sum()))
        return found

    def ground_truth(
        self, dataset: Dataset, gallery: Features, queries: Features, own: np.ndarray, cache: Path, progress: Progress
    ) -> GroundTruth:
        relevance = Relevance(queries.y, gallery.y, self.kind == "subset" and gallery.y.ndim == 2)
        return GroundTruth(without_own(relevance, own), RULES[self.kind])
