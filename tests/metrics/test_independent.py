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


RANX = {
    "map": "AP",
    "ndcg@10": "nDCG@10",
    "mrr": "RR",
    "map@50": "AP@50/trec",
    "precision@10": "P@10",
    "precision@50": "P@50",
    "recall@50": "recall@50",
    "r-precision": "R-precision",
}


@pytest.mark.slow  # ranx compiles each of its measures on first use, for some seconds
@pytest.mark.parametrize("name", RANX)
@pytest.mark.filterwarnings("ignore:unsafe cast")
def test_measures_agree_with_ranx(name: str, block: RankedBlock, relevance: np.ndarray) -> None:
    import ranx

    items = [f"d{item}" for item in range(ITEMS)]
    scores = dict(zip(items, range(ITEMS, 0, -1), strict=True))
    relevant, run = {}, {}
    for query, marks in enumerate(relevance):
        relevant[f"q{query:02}"] = {items[item]: 1 for item in np.flatnonzero(marks)}
        run[f"q{query:02}"] = {item: float(score) for item, score in scores.items()}
    values = ranx.evaluate(ranx.Qrels(relevant), ranx.Run(run), name, return_mean=False)
    np.testing.assert_allclose(measure(block)[RANX[name]], values, rtol=0, atol=1e-12)
