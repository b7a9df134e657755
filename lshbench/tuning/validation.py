"""The part of a training set that trials are judged on: queries cut from it, and what they are looked for in."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from lshbench.errors import UsageError
from lshbench.evaluation.evaluate import evaluate
from lshbench.inputs import Inputs, OpenedData
from lshbench.protocols.splits import Selection, classes_of, sides_of
from lshbench.relevance.base import RelevanceRule
from lshbench.relevance.labels import LabelRule
from lshbench.relevance.neighbors import NeighborRule
from lshbench.system import System
from lshbench.training.data import held_out
from lshbench.tuning.settings import Relevant
from lshbench.types import Features, Progress, Relevance, Supervision, is_unlabelled

log = logging.getLogger(__name__)


def cut_validation(
    items: np.ndarray,
    labels: np.ndarray,
    gallery_labels: np.ndarray,
    *,
    part: float,
    most: int,
    seed: int,
    key: str = "tune.validation",
) -> Selection:
    """Return validation queries, their gallery and what is learnt from, all of them training items.

    Where the gallery has none of the training's classes, the queries are of classes that are not learnt from, either,
    and are looked for among the other items of these; items with classes of both kinds are left out.  Else queries of
    every class are looked for among all that is learnt from.

    Args:
        items: the run's training items, int64 ``(n,)``, ascending.
        labels: theirs, int64 ``(n,)`` or bool ``(n, classes)``.
        gallery_labels: of the run's gallery.
        part: of the items, or of the classes, that is held out.
        most: queries at most.
        seed: decides the cut.
        key: of ``part``, for messages.

    Raises:
        UsageError: too few items or classes.
    """
    generator = np.random.default_rng([seed, 0x7E57])
    rows, learnt = np.arange(len(items)), None
    classes, in_gallery = classes_of(labels), classes_of(gallery_labels)
    if len(classes) and not np.isin(in_gallery, classes).any():
        count = max(2, round(part * len(classes)))
        if count > len(classes) - 2:
            raise UsageError(
                f"{key}={part}: {len(classes)} training classes are too few to hold out some that no trial "
                "learns from, as the protocol does"
            )
        seen, unseen = sides_of(labels, generator.permutation(classes)[:count])
        rows, learnt = np.flatnonzero(unseen), np.flatnonzero(seen)
        if mixed := len(items) - len(rows) - len(learnt):
            log.info("%d of %d training items have classes of both sides, or none, and are left out", mixed, len(items))
    held = labels[rows] if labels.ndim == 2 else np.unique(labels[rows], return_inverse=True)[1]
    queries = rows[held_out(held, part, generator)]
    gallery = np.setdiff1d(rows, queries)
    train = gallery if learnt is None else learnt
    if len(queries) == 0 or len(train) < 2:
        raise UsageError(
            f"{key}={part} leaves {len(queries)} validation queries and {len(train)} items to learn from of "
            f"{len(items)} training items: expected more items, or another part"
        )
    queries = np.sort(generator.permutation(queries)[:most])
    return Selection(items[queries], items[gallery], items[train])


def rule_of_trials(run: RelevanceRule, relevant: Relevant, supervision: Supervision) -> RelevanceRule:
    """Return the rule that says what is relevant to a validation query, as it would be of the run's own.

    Args:
        run: the run's rule.
        relevant: ``auto``: that rule, but nearest neighbours where it goes by labels and the method must not know of
            them; ``labels`` or ``neighbors``: of this kind, with the run's own keys if its rule is of this kind.
        supervision: what is learnt from.
    """
    if relevant == "auto":
        return NeighborRule() if isinstance(run, LabelRule) and supervision == "none" else run
    wanted = LabelRule if relevant == "labels" else NeighborRule
    return run if isinstance(run, wanted) else wanted()


@dataclass(frozen=True)
class Judge:
    """Fits systems on one part of a training set and measures them on another.

    Attributes:
        queries, gallery, train: the parts.
        relevance: of the gallery to the queries.
        by: what it goes by: ``labels`` or ``neighbors``.
        rule: the same in words.
        measure: a name in ``metrics`` of ``metrics.json``.
    """

    queries: Features
    gallery: Features
    train: Features
    relevance: Relevance
    by: str
    rule: str
    measure: str

    @classmethod
    def of(
        cls,
        data: OpenedData,
        inputs: Inputs,
        *,
        part: float,
        most: int,
        rule: RelevanceRule,
        measure: str,
        progress: Progress,
        group: str = "tune",
    ) -> Judge:
        """Return the judge of a run's training items; its query items are neither loaded nor looked at.

        Args:
            data: opened for the run.
            inputs: the run's.
            part, most: as for :func:`cut_validation`.
            rule: what is relevant to a query (:func:`rule_of_trials`).
            measure: a name in ``metrics`` of ``metrics.json``.
            progress: of extracting features, and of searching for neighbours.
            group: of the keys, for messages.

        Raises:
            UsageError: too few items, or none that the rule calls relevant to a query.
        """
        dataset, train = data.dataset, data.selection.train
        if rule.needs_labels and is_unlabelled(dataset.labels):
            raise UsageError(f"{group}.relevant=labels: {dataset.name} has no labels; expected neighbors")
        cut = cut_validation(
            train,
            dataset.labels[train],
            dataset.labels[data.selection.gallery],
            part=part,
            most=most,
            seed=inputs.seed,
            key=f"{group}.validation",
        )
        applied = rule.of_training(dataset, len(cut.gallery))
        if applied is None:
            others = "neighbors" if is_unlabelled(dataset.labels) else "labels or neighbors"
            raise UsageError(
                f"{group}.relevant=auto: the pairs of {dataset.name} were judged for its own queries, which are not "
                f"looked at, and not for training items; expected {others}"
            )
        unanswered = applied.unanswered(dataset, cut)
        if unanswered.count == unanswered.total:
            raise UsageError(
                f"{group}.validation={part}: none of the {unanswered.total} validation queries has anything to find "
                f"among the other training items; expected another part, or {group}.relevant=neighbors"
            )
        if unanswered.count:
            what = "validation queries have nothing to find among the other training items; each counts as 0"
            log.warning("%d of %d %s", unanswered.count, unanswered.total, what)
        roles = inputs.load(OpenedData(dataset, cut, data.fingerprint, unanswered), progress)
        none_itself = np.full(len(roles.queries), -1)
        truth = applied.ground_truth(dataset, roles.gallery, roles.queries, none_itself, inputs.cache, progress)
        by = "labels" if applied.needs_labels else "neighbors"
        return cls(roles.queries, roles.gallery, roles.train, truth.relevance, by, truth.rule, measure)

    def quality(self, system: System, progress: Progress) -> float:
        """Return the measure of a system, which is fitted for it; an index is searched at its most thorough settings.

        Raises:
            UsageError: values that the method can't use.
        """
        system.check_labels(self.train.y)
        system.fit(self.train, progress)
        system.build(system.encode(self.gallery.x, "gallery"))
        system.index.set_point(system.index.points()[-1])
        blocks = system.index.rank(system.encode(self.queries.x, "query"), self.relevance, positions=0)
        found = evaluate(blocks, len(self.queries), progress, "ranking").summary["metrics"][self.measure]
        assert found is not None, "there is at least one query"
        return found
