"""Recall of an index over codes among ties: by item and by distance, before and after rescoring."""

from __future__ import annotations

import numpy as np
import pytest
from test_timing import sides, silent

from lshbench.evaluation.code_recall import code_recall
from lshbench.evaluation.timing import Clock
from lshbench.evaluation.tradeoff import Queries, measure_points
from lshbench.index.base import Index
from lshbench.index.binary_engines import BinaryHashEngine
from lshbench.index.binary_graphs import BinaryHnswEngine
from lshbench.index.buckets import BucketsIndex
from lshbench.index.flat import FlatIndex
from lshbench.index.oversampled import OversampledIndex


def recall(index: Index) -> dict[str, float | None] | None:
    gallery, queries, relevance = sides()
    measured = measure_points(
        index.build(gallery), Queries(queries, relevance, lambda start, stop: queries[start:stop]), None,
        k=20, definitions=False, description="ranking", clock=Clock(), progress=silent,
    )  # fmt: skip
    return code_recall(index, measured, gallery, queries, relevance)


def differing() -> np.ndarray:
    gallery, queries, _ = sides()
    return (queries.binary.unpack()[:, None] != gallery.binary.unpack()[None]).sum(axis=2)


def test_recall_of_a_hash_table_counts_items_and_distances_one_by_one() -> None:
    gallery, queries, _ = sides()
    found = recall(BinaryHashEngine(b=4, nflip=1))
    assert found is not None
    keys = (queries.binary.unpack()[:, None, :4] != gallery.binary.unpack()[None, :, :4]).sum(axis=2)
    items = distances = 0.0
    for own, key in zip(differing(), keys, strict=True):
        order = np.argsort(own, kind="stable")
        exact, visited = order[:10], order[key[order] <= 1][:10]
        items += np.isin(exact, visited).mean()
        distances += (own[visited] <= own[exact[-1]]).sum() / 10
    assert found["item"] == pytest.approx(items / len(queries))
    assert found["distance"] == pytest.approx(distances / len(queries))
    assert found["item"] < found["distance"] < 1
    assert found["rescored_item"] is None


def test_rescored_recall_is_against_an_exhaustive_ranking_that_is_rescored_alike() -> None:
    whole = recall(OversampledIndex(BinaryHnswEngine(m=8, ef_search=1000), 2))
    assert whole is not None
    assert whole["distance"] == 1.0
    assert whole["item"] is not None
    assert whole["rescored_item"] is not None
    assert whole["rescored_distance"] is not None
    few = recall(OversampledIndex(BinaryHnswEngine(m=2, ef_construction=2, ef_search=10), 2))
    assert few is not None
    assert few["rescored_item"] is not None
    assert few["rescored_item"] < whole["rescored_item"] <= whole["rescored_distance"]


@pytest.mark.parametrize("index", [FlatIndex(), FlatIndex(gives="nothing"), BucketsIndex(tables=1, bits_per_table=4)])
def test_rankings_of_everything_and_by_other_distances_have_none(index: Index) -> None:
    assert recall(index) is None
