"""Where quality is lost: the same measures of the features, of the codes alone, and of the index that searches them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lshbench.evaluation.evaluate import evaluate
from lshbench.evaluation.reference import Reference
from lshbench.evaluation.tradeoff import HEADLINE, Measured
from lshbench.index.base import Index
from lshbench.index.flat import FlatIndex
from lshbench.metrics.precision import recall_at
from lshbench.ranking.lists import as_lists, list_blocks
from lshbench.types import Encoded, Listed, Progress, Relevance

Measures = dict[str, float | None]
"""mAP, P@10 and P@50, as means over queries, and ``recall@10``: the share of the first ten by exact cosine of the
features that is expected among the first ten, over the order of ties; None without a reference."""

MORE = 54
"""Results beyond those that are needed, so that the last one's ties are among them for most queries."""


@dataclass(frozen=True)
class Loss:
    """The same measures at each step from features to results.

    Attributes:
        features: of exact cosine ranking; None without a reference.
        codes: of the codes' exact ranking of the whole gallery; None where they were not ranked, or there are none.
        index: of the index as it was searched.
    """

    features: Measures | None
    codes: Measures | None
    index: Measures


def expected_recall(index: Index, queries: Encoded, relevance: Relevance, reference: Reference) -> float:
    """Return the share of the first ten by exact cosine that is among the first ten, expected over the order of ties.

    Args:
        index: at the query settings to measure.
        queries: encoded.
        relevance: whose left-out rows are left out here, too.
        reference: exact cosine ranking.
    """
    nearest = reference.neighbors[:, :10]
    query, column = np.nonzero(nearest >= 0)
    rows, grades = nearest[query, column], np.ones(len(query), np.float32)
    if relevance.listed is not None:
        listed, out = relevance.listed, relevance.listed.left_out
        query = np.concatenate([query, np.repeat(np.arange(len(listed)), np.diff(listed.offsets))[out]])
        rows, grades = np.concatenate([rows, listed.rows[out]]), np.concatenate([grades, listed.grades[out]])
    order = np.lexsort((rows, query))
    offsets = np.searchsorted(query[order], np.arange(len(nearest) + 1))
    lists = Relevance.of_lists(Listed(offsets, rows[order], grades[order]), len(relevance.gallery))
    found, unsettled = np.empty(len(nearest)), np.arange(len(nearest))
    if index.ranking != "hamming":  # too many tie there
        unsettled = _settle(index, queries, lists, 10 + relevance.most_left_out, found)
    if len(unsettled):
        blocks = index.rank(queries[unsettled], lists.of_queries(unsettled), positions=0)
        found[unsettled] = np.concatenate([recall_at(block, 10).expected for block in blocks])
    return float(found.mean())


def _settle(index: Index, queries: Encoded, lists: Relevance, needed: int, recall: np.ndarray) -> np.ndarray:
    """Fill in the recall of the queries whose first results decide it; return the others, int64 ``(m,)``.

    Results decide it when the last of them is farther than the last one needed, so that none of its ties is missing.
    """
    results = index.search(queries, min(needed + MORE, len(index)))
    complete = (results.ids[:, -1] < 0) | (results.ids.shape[1] == len(index))
    if needed < results.ids.shape[1]:
        complete |= results.distances[:, -1] > results.distances[:, needed - 1]
    settled = np.flatnonzero(complete)
    if len(settled):
        first = as_lists(results.distances[settled], results.ids[settled])
        blocks = list_blocks(*first, lists.of_queries(settled), positions=0)
        recall[settled] = np.concatenate([recall_at(block, 10).expected for block in blocks])
    return np.flatnonzero(~complete)


def index_measures(
    index: Index, measured: Measured, queries: Encoded, relevance: Relevance, reference: Reference | None
) -> Measures:
    """Return the measures of an index at its last query settings.

    Args:
        index: at these settings.
        measured: at these settings.
        queries: encoded.
        relevance: of the gallery to the queries.
        reference: exact cosine ranking, if known.
    """
    metrics, recall = measured.evaluation.summary["metrics"], measured.recall
    if reference is not None and index.ranking != "cosine":  # cosines tie for exact copies alone
        recall = expected_recall(index, queries, relevance, reference)
    return {**{name: metrics[name] for name in HEADLINE}, "recall@10": recall}


def feature_measures(reference: Reference | None) -> Measures | None:
    """Return the measures of exact cosine ranking, if known."""
    if reference is None:
        return None
    return {**{name: reference.metrics[name] for name in HEADLINE}, "recall@10": 1.0}


def code_measures(
    index: Index,
    of_index: Measures,
    gallery: Encoded,
    queries: Encoded,
    relevance: Relevance,
    reference: Reference | None,
    progress: Progress,
) -> Measures | None:
    """Return the measures of the codes' exact ranking of the whole gallery; None where no codes can rank it.

    An index that compares every query with the whole gallery by nothing but codes has made that ranking.

    Args:
        index: whose codes they are.
        of_index: the index's own measures.
        gallery, queries: encoded.
        relevance: of the gallery to the queries.
        reference: exact cosine ranking, if known.
        progress: reports the queries ranked.
    """
    if index.gives not in ("binary", "quantised"):
        return None
    if index.exhaustive:
        return of_index
    exact = FlatIndex(gives=index.gives, ranking=index.code_ranking).build(gallery)
    blocks = exact.rank(queries, relevance, positions=0)
    metrics = evaluate(blocks, len(queries), progress, "ranking by codes alone").summary["metrics"]
    recall = None
    if reference is not None:
        recall = expected_recall(exact, queries, relevance, reference)
    return {**{name: metrics[name] for name in HEADLINE}, "recall@10": recall}
