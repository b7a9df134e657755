"""Agreement with independent libraries on rankings without ties."""

from __future__ import annotations

import numpy as np
import pytest
import rankings as brute

from lshbench.metrics.measures import measure
from lshbench.types import RankedBlock

QUERIES, ITEMS = 12, 300


@pytest.fixture(scope="module")
def relevance() -> np.ndarray:
    """Relevance by rank; the first query has one relevant item, the second nothing but relevant items."""
    generator = np.random.default_rng(7)
    marks = generator.random((QUERIES, ITEMS)) < generator.uniform(0.02, 0.5, (QUERIES, 1))
    marks[0], marks[1] = False, True
    marks[0, 41] = True
    return marks


@pytest.fixture(scope="module")
def block(relevance: np.ndarray) -> RankedBlock:
    return brute.block_of([[(rank, bool(mark)) for rank, mark in enumerate(marks)] for marks in relevance])


def test_average_precision_and_ndcg_agree_with_scikit_learn(block: RankedBlock, relevance: np.ndarray) -> None:
    from sklearn.metrics import average_precision_score, ndcg_score

    scores = np.arange(ITEMS, 0, -1.0)
    measures = measure(block)
    for query, marks in enumerate(relevance):
        assert measures["AP"][query] == pytest.approx(average_precision_score(marks, scores), abs=1e-12)
        assert measures["nDCG@50"][query] == pytest.approx(ndcg_score(marks[None], scores[None], k=50), abs=1e-12)


TREC_EVAL = {
    "map": "AP",
    "map_cut_50": "AP@50/trec",
    "ndcg_cut_10": "nDCG@10",
    "recip_rank": "RR",
    "P_10": "P@10",
    "P_50": "P@50",
    "recall_10": "recall@10",
    "recall_50": "recall@50",
    "Rprec": "R-precision",
}


def test_measures_agree_with_trec_eval(block: RankedBlock, relevance: np.ndarray) -> None:
    import pytrec_eval

    run = {f"d{item}": float(ITEMS - item) for item in range(ITEMS)}
    relevant = {f"q{query}": {f"d{item}": 1 for item in np.flatnonzero(marks)} for query, marks in enumerate(relevance)}
    found = pytrec_eval.RelevanceEvaluator(relevant, set(TREC_EVAL)).evaluate(dict.fromkeys(relevant, run))
    measures = measure(block)
    for theirs, ours in TREC_EVAL.items():
        values = [found[f"q{query}"][theirs] for query in range(QUERIES)]
        np.testing.assert_allclose(measures[ours], values, rtol=0, atol=1e-12, err_msg=ours)
