"""Relevance by judged pairs with grades, as qrels list them."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from lshbench.data.base import Dataset, Judgments
from lshbench.errors import UsageError, wrong_value
from lshbench.protocols.splits import Selection
from lshbench.protocols.unanswered import Unanswered
from lshbench.relevance.base import GroundTruth, RelevanceRule, listed_pairs, without_own
from lshbench.types import Features, Listed, Progress, Relevance

log = logging.getLogger(__name__)

GAINS = ("linear", "exponential")


class QrelRule(RelevanceRule):
    """Judged pairs: relevant from a grade on; below 0 junk, which counts neither way; unlisted is not relevant.

    Args:
        threshold: the grade from which an item is relevant, above 0.
        gain: what a grade above 0 adds to nDCG: ``linear``, the grade itself, or ``exponential``, 2^grade - 1.
    """

    def __init__(self, threshold: float = 1, gain: str = "linear") -> None:
        if not threshold > 0:
            raise wrong_value("relevance.threshold", threshold, "a grade above 0")
        if gain not in GAINS:
            raise wrong_value("relevance.gain", gain, " or ".join(GAINS))
        self.threshold, self.gain = threshold, gain

    def check(self, dataset: Dataset, selection: Selection) -> None:
        found = self.unanswered(dataset, selection)
        if found.count == found.total:
            raise UsageError(
                f"relevance=qrels: no item of the gallery was judged {self.threshold:g} or more for any of the "
                f"{found.total} queries; expected another relevance.threshold, or another gallery"
            )

    def unanswered(self, dataset: Dataset, selection: Selection, leave_one_out: bool = False) -> Unanswered:
        listed = self._listed(self._judgments(dataset), selection.queries, selection.gallery)
        counts = np.diff(np.concatenate([[0], np.cumsum(listed.relevant)])[listed.offsets])
        return Unanswered(int((counts == 0).sum()), len(selection.queries), [])

    def ground_truth(
        self, dataset: Dataset, gallery: Features, queries: Features, own: np.ndarray, cache: Path, progress: Progress
    ) -> GroundTruth:
        judgments = self._judgments(dataset)
        listed = self._listed(judgments, queries.ids, gallery.ids)
        if outside := int((~np.isin(judgments.items, gallery.ids)).sum()):
            log.info("%d of %d judged pairs name items that are not in the gallery", outside, len(judgments.items))
        relevance = without_own(Relevance.of_lists(listed, len(gallery)), own)
        rule = f"judged {self.threshold:g} or more" + (f", {self.gain} gain" if listed.graded else "")
        return GroundTruth(relevance, rule)

    def of_training(self, dataset: Dataset, items: int) -> None:
        return None

    def _judgments(self, dataset: Dataset) -> Judgments:
        if dataset.judgments is None:
            raise UsageError(
                f"relevance=qrels: {dataset.name} has no judged pairs; expected relevance=labels or relevance=neighbors"
            )
        return dataset.judgments

    def _listed(self, judgments: Judgments, queries: np.ndarray, gallery: np.ndarray) -> Listed:
        """Return the judged pairs of a run's queries and gallery, given their item numbers, ascending."""
        asked, rows = _places(judgments.queries, queries), _places(judgments.items, gallery)
        here = (asked >= 0) & (rows >= 0)
        pairs = np.stack([asked[here], rows[here]])
        unique, first = np.unique(pairs, axis=1, return_index=True)
        if unique.shape[1] < pairs.shape[1]:
            raise UsageError(f"{pairs.shape[1] - unique.shape[1]} pairs are judged twice: expected each once")
        grades = judgments.grades[here][first].astype(np.float64)
        threshold = float(self.threshold)
        graded = len(np.unique(grades[grades > 0])) > 1
        if self.gain == "exponential":
            grades, threshold = np.where(grades > 0, np.exp2(grades) - 1, grades), np.exp2(threshold) - 1
        listed = listed_pairs(unique[0], unique[1], grades, len(queries))
        return replace(listed, threshold=float(np.float32(threshold)), graded=graded)


def _places(items: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Return where item numbers stand in an ascending list, int64, -1 where they don't."""
    places = np.minimum(np.searchsorted(among, items), len(among) - 1)
    return np.where(among[places] == items, places, -1)
