"""Where quality is lost: the same measures of the features, of the codes alone, and of the index that searches them."""

from __future__ import annotations

from dataclasses import dataclass

from lshbench.evaluation.evaluate import evaluate
from lshbench.evaluation.reference import Reference
from lshbench.evaluation.tradeoff import HEADLINE, Measured, overlap
from lshbench.index.base import Index
from lshbench.index.flat import FlatIndex
from lshbench.ranking.listed import first_kept
from lshbench.types import Encoded, Progress, Relevance

Measures = dict[str, float | None]
"""mAP, P@10 and P@50, as means over queries, and ``recall@10``: the share of the first ten by exact cosine of the
features that is among the first ten; None without a reference."""


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


def loss_of(measured: Measured, reference: Reference | None, codes: Measures | None) -> Loss:
    """Return the measures of each step.

    Args:
        measured: the index, at its last query settings.
        reference: exact cosine ranking, if known.
        codes: what :func:`code_measures` returned.
    """
    features = None
    if reference is not None:
        features = {**{name: reference.metrics[name] for name in HEADLINE}, "recall@10": 1.0}
    metrics = measured.evaluation.summary["metrics"]
    index = {**{name: metrics[name] for name in HEADLINE}, "recall@10": measured.recall}
    return Loss(features, codes, index)


def code_measures(
    index: Index,
    measured: Measured,
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
        measured: the index, at its last query settings.
        gallery, queries: encoded.
        relevance: of the gallery to the queries.
        reference: exact cosine ranking, if known.
        progress: reports the queries ranked.
    """
    if index.gives not in ("binary", "quantised"):
        return None
    if index.exhaustive:
        return loss_of(measured, reference, None).index
    exact = FlatIndex(gives=index.gives, ranking=index.code_ranking).build(gallery)
    blocks = exact.rank(queries, relevance, positions=0)
    metrics = evaluate(blocks, len(queries), progress, "ranking by codes alone").summary["metrics"]
    recall = None
    if reference is not None:
        found = exact.search(queries, min(10 + relevance.most_left_out, len(gallery)))
        recall = overlap(first_kept(found, relevance).ids, reference.neighbors, 10)
    return {**{name: metrics[name] for name in HEADLINE}, "recall@10": recall}
