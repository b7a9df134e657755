"""The part of a training set that trials are judged on: queries cut from it, and what they are looked for in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from lshbench.errors import UsageError
from lshbench.evaluation.evaluate import evaluate
from lshbench.inputs import Inputs, OpenedData
from lshbench.protocols.splits import Selection
from lshbench.system import System
from lshbench.training.data import held_out
from lshbench.training.validation import nearest_by_cosine
from lshbench.types import Features, Progress, Relevance, is_unlabelled


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
    and are looked for among the other items of these; else queries of every class are looked for among all that is
    learnt from.

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
    names, numbers = (None, labels) if labels.ndim == 2 else np.unique(labels, return_inverse=True)
    rows, learnt = np.arange(len(items)), None
    if names is not None and not np.isin(gallery_labels, names).any():
        count = max(2, round(part * len(names)))
        if count > len(names) - 2:
            raise UsageError(
                f"{key}={part}: {len(names)} training classes are too few to hold out some that no trial "
                "learns from, as the protocol does"
            )
        held = generator.permutation(len(names))[:count]
        unseen = np.isin(numbers, held)
        rows, learnt = np.flatnonzero(unseen), np.flatnonzero(~unseen)
        numbers = np.unique(numbers[rows], return_inverse=True)[1]
    queries = rows[held_out(numbers, part, generator)]
    gallery = np.setdiff1d(rows, queries)
    train = gallery if learnt is None else learnt
    if len(queries) == 0 or len(train) < 2:
        raise UsageError(
            f"{key}={part} leaves {len(queries)} validation queries and {len(train)} items to learn from of "
            f"{len(items)} training items: expected more items, or another part"
        )
    queries = np.sort(generator.permutation(queries)[:most])
    return Selection(items[queries], items[gallery], items[train])


@dataclass(frozen=True)
class Judge:
    """Fits systems on one part of a training set and measures them on another.

    Attributes:
        queries, gallery, train: the parts.
        relevance: of the gallery to the queries.
        by: what it goes by: ``labels`` or ``neighbors``.
        measure: a name in ``metrics`` of ``metrics.json``.
    """

    queries: Features
    gallery: Features
    train: Features
    relevance: Relevance
    by: str
    measure: str

    @classmethod
    def of(
        cls,
        data: OpenedData,
        inputs: Inputs,
        *,
        part: float,
        most: int,
        by: str,
        measure: str,
        progress: Progress,
        key: str = "tune.validation",
    ) -> Judge:
        """Return the judge of a run's training items; its query items are neither loaded nor looked at.

        Args:
            data: opened for the run.
            inputs: the run's.
            part, most, key: as for :func:`cut_validation`.
            by: what makes an item relevant to a query: a common label (``labels``), or that it is one of its nearest
                by cosine (``neighbors``).
            measure: a name in ``metrics`` of ``metrics.json``.
            progress: of extracting features.
        """
        labels, train = data.dataset.labels, data.selection.train
        if by == "labels" and is_unlabelled(labels):
            raise UsageError(f"{data.dataset.name} has no labels to judge trials by: expected tune.relevant=neighbors")
        gallery_labels = labels[data.selection.gallery]
        cut = cut_validation(train, labels[train], gallery_labels, part=part, most=most, seed=inputs.seed, key=key)
        roles = inputs.load(OpenedData(data.dataset, cut, data.fingerprint, data.unanswered), progress)
        if by == "labels":
            relevance = Relevance(roles.queries.y, roles.gallery.y)
        else:
            # Each query is a label of its own, which its neighbours have.
            found = nearest_by_cosine(torch.tensor(roles.queries.x), torch.tensor(roles.gallery.x))(slice(None)).numpy()
            relevance = Relevance(np.eye(len(found), dtype=bool), np.ascontiguousarray(found.T))
        return cls(roles.queries, roles.gallery, roles.train, relevance, by, measure)

    def quality(self, system: System, progress: Progress) -> float:
        """Return the measure of a system, which is fitted for it; an index is searched at its most thorough settings.

        Raises:
            UsageError: values that the method can't use.
        """
        system.fit(self.train, progress)
        system.build(system.encode(self.gallery.x, "gallery"))
        system.index.set_point(system.index.points()[-1])
        blocks = system.index.rank(system.encode(self.queries.x, "query"), self.relevance, positions=0)
        found = evaluate(blocks, len(self.queries), progress, "ranking").summary["metrics"][self.measure]
        assert found is not None, "there is at least one query"
        return found
