"""Relevance by true neighbours: the nearest gallery items by exact search, or those that come with the data set."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import cast

import numpy as np

from lshbench.data.base import Dataset, GivenNeighbors, Metric
from lshbench.errors import UsageError, wrong_value
from lshbench.protocols.splits import Selection
from lshbench.protocols.unanswered import Unanswered
from lshbench.relevance.base import GroundTruth, RelevanceRule, listed_pairs, without_own
from lshbench.relevance.exact import distances_of, nearest_with_ties
from lshbench.runtime.kept import content_digest, kept
from lshbench.types import Features, Progress, Relevance

log = logging.getLogger(__name__)

METRICS = ("auto", "cosine", "euclidean", "inner_product")
TIES = ("included", "first")
SOURCES = ("auto", "file", "exact")

CHECKED = 100
"""Queries whose listed neighbours are compared with exact search."""

WRONG_SHARE = 0.005
"""Share of listed neighbours that may be none, by exact search: files are computed with other rounding."""

RELATIVE, ABSOLUTE = 1e-4, 1e-5
"""Differences of distances that are rounding."""


class NeighborRule(RelevanceRule):
    """The k nearest gallery items of a query are relevant to it.

    Args:
        k: how many.
        metric: ``cosine``, ``euclidean`` or ``inner_product``; ``auto`` is that of the neighbours that come with the
            data set, else cosine.
        ties: what is as near as the k-th: ``included``, so that more than k items may be relevant, or ``first``, the
            first k by gallery row alone.
        source: ``file``, the neighbours that come with the data set; ``exact``, those of exact search; ``auto``, the
            former if there are any, for this gallery.
    """

    def __init__(self, k: int = 100, metric: str = "auto", ties: str = "included", source: str = "auto") -> None:
        if k < 1:
            raise wrong_value("relevance.k", k, "at least 1")
        for key, value, known in (("metric", metric, METRICS), ("ties", ties, TIES), ("source", source, SOURCES)):
            if value not in known:
                raise wrong_value(f"relevance.{key}", value, " or ".join(known))
        self.k, self.metric, self.ties, self.source = k, metric, ties, source

    def check(self, dataset: Dataset, selection: Selection) -> None:
        if self.k > len(selection.gallery):
            raise wrong_value("relevance.k", self.k, f"at most {len(selection.gallery)}, the items of the gallery")
        given = dataset.given_neighbors
        if given is None:
            if self.source == "file":
                raise UsageError(
                    f"relevance.source=file: {dataset.name} lists no neighbours; expected exact, which looks for them"
                )
            return
        if self.source == "exact":
            return
        if self.metric not in ("auto", given.metric):
            raise wrong_value(
                "relevance.metric",
                self.metric,
                f"{given.metric}, by which {dataset.name} lists neighbours, or relevance.source=exact",
            )
        if self.k > given.rows.shape[1]:
            right = f"at most {given.rows.shape[1]}, the neighbours that {dataset.name} lists of a query"
            raise wrong_value("relevance.k", self.k, f"{right}, or relevance.source=exact")
        own = np.isin(selection.queries, dataset.query_items) & ~np.isin(selection.queries, selection.gallery)
        if not (own.all() and np.array_equal(selection.gallery, dataset.gallery_items)):
            raise self._of_others(dataset)

    def _of_others(self, dataset: Dataset) -> UsageError:
        return UsageError(
            f"relevance=neighbors: {dataset.name} lists neighbours of its own queries in its whole gallery, and this "
            "run's are others (protocol, dataset.max_gallery, images that can't be read); relevance.source=exact "
            "searches for them"
        )

    def unanswered(self, dataset: Dataset, selection: Selection, leave_one_out: bool = False) -> Unanswered:
        return Unanswered(0, len(selection.queries), [])

    def ground_truth(
        self, dataset: Dataset, gallery: Features, queries: Features, own: np.ndarray, cache: Path, progress: Progress
    ) -> GroundTruth:
        given = None if self.source == "exact" else dataset.given_neighbors
        if given is not None:
            if len(gallery) != len(dataset.gallery):
                raise self._of_others(dataset)
            metric, source = given.metric, "as the data set lists them"
            offsets, rows = self._given(given, dataset, gallery, queries, progress)
        else:
            metric, source = cast(Metric, "cosine" if self.metric == "auto" else self.metric), "exact search"
            offsets, rows = self._searched(gallery, queries, own, metric, cache, progress)
        counts = np.diff(offsets)
        rank = np.arange(len(rows)) - np.repeat(offsets[:-1], counts)
        query = np.repeat(np.arange(len(queries)), counts)
        nearest = np.full((len(queries), self.k), -1)
        nearest[query[rank < self.k], rank[rank < self.k]] = rows[rank < self.k]
        relevant = rank < self.k if self.ties == "first" else np.ones(len(rows), np.bool_)
        grades = np.ones(int(relevant.sum()), np.float32)
        listed = listed_pairs(query[relevant], rows[relevant], grades, len(queries))
        if more := int((counts > self.k).sum()):
            what = "count as relevant, too" if self.ties == "included" else "do not count"
            log.info("%d queries have items as near as their neighbour %d, which %s", more, self.k, what)
        relevance = without_own(Relevance.of_lists(listed, len(gallery)), own)
        ties = "ties included" if self.ties == "included" else "no ties"
        rule = f"the {self.k} nearest by {metric.replace('_', ' ')} ({source}, {ties})"
        return GroundTruth(relevance, rule, nearest)

    def of_training(self, dataset: Dataset, items: int) -> RelevanceRule:
        given = None if self.source == "exact" else dataset.given_neighbors
        # What the data set lists are neighbours of its own queries: a training item's are searched for, by its metric.
        metric = self.metric if given is None else given.metric
        return NeighborRule(min(self.k, items), metric, self.ties, "exact")

    def _searched(
        self,
        gallery: Features,
        queries: Features,
        own: np.ndarray,
        metric: Metric,
        cache: Path,
        progress: Progress,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what :func:`nearest_with_ties` finds besides the query itself, from the cache if it is there."""
        content = content_digest(gallery.x, queries.x, own)
        key = hashlib.sha256(f"1 {content} {self.k} {metric}".encode()).hexdigest()
        more = bool((own >= 0).any())

        def compute() -> dict[str, np.ndarray]:
            offsets, rows, distances = nearest_with_ties(queries.x, gallery.x, self.k + more, metric, progress)
            if more:
                offsets, rows = self._besides(own, offsets, rows, distances)
            return {"offsets": offsets, "rows": rows}

        path = cache / "references" / f"{key}.neighbors.npz"
        found = kept(path, "the true neighbours", compute, lambda arrays: len(arrays["offsets"]) == len(queries) + 1)
        return found["offsets"], found["rows"]

    def _besides(
        self, own: np.ndarray, offsets: np.ndarray, rows: np.ndarray, distances: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return neighbours without the query itself: again the k nearest, and those as near as the k-th."""
        query = np.repeat(np.arange(len(own)), np.diff(offsets))
        other = rows != own[query]
        query, rows, distances = query[other], rows[other], distances[other]
        offsets = np.searchsorted(query, np.arange(len(own) + 1))
        last = distances[np.minimum(offsets[:-1] + self.k, offsets[1:]) - 1]
        near = distances <= last[query]
        return np.concatenate([[0], np.cumsum(near)])[offsets], rows[near]

    def _given(
        self, given: GivenNeighbors, dataset: Dataset, gallery: Features, queries: Features, progress: Progress
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the neighbours that come with the data set, those at the k-th one's distance as far as it lists them.

        Raises:
            UsageError: they are not what exact search finds.
        """
        listed = given.rows[queries.ids - dataset.query_items[0]].astype(np.int64)
        if listed.min() < 0 or listed.max() >= len(gallery):
            raise UsageError(
                f"{dataset.name} lists neighbours {listed.min()} to {listed.max()}, but its gallery has "
                f"{len(gallery)} items"
            )
        self._compare(given.metric, dataset.name, gallery, queries, listed, progress)
        distances = distances_of(queries.x, gallery.x, listed, given.metric)
        order = np.lexsort((listed, distances), axis=1)
        listed, distances = np.take_along_axis(listed, order, axis=1), np.take_along_axis(distances, order, axis=1)
        near = distances <= distances[:, self.k - 1 : self.k]
        return np.concatenate([[0], np.cumsum(near.sum(axis=1))]), listed[near]

    def _compare(
        self,
        metric: Metric,
        name: str,
        gallery: Features,
        queries: Features,
        listed: np.ndarray,
        progress: Progress,
    ) -> None:
        some = np.unique(np.linspace(0, len(queries) - 1, CHECKED).astype(np.int64))
        asked, first = queries.x[some], listed[some, : self.k]
        offsets, _, exact = nearest_with_ties(asked, gallery.x, self.k, metric, progress)
        farthest = exact[offsets[1:] - 1][:, None]
        found = distances_of(asked, gallery.x, first, metric)
        wrong = found > farthest + RELATIVE * np.abs(farthest) + ABSOLUTE
        repeated = (np.diff(np.sort(first, axis=1), axis=1) == 0).sum()
        if wrong.mean() > WRONG_SHARE or repeated:
            raise UsageError(
                f"relevance=neighbors: {name} lists other neighbours than exact search by {metric} finds: of "
                f"{len(some)} queries checked, {wrong.mean():.1%} of the first {self.k} are farther than the true "
                f"neighbour {self.k}, and {repeated} are listed twice; expected the metric that they were made by, or "
                "relevance.source=exact"
            )
        if wrong.any():
            log.warning("%s: %.2f%% of the neighbours listed are not exact", name, 100 * wrong.mean())
