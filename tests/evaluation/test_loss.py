"""Where quality is lost: the codes are ranked alone, beside the features and the index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from test_timing import sides, silent

from lshbench.evaluation import loss as losses
from lshbench.evaluation.loss import Loss, code_measures, feature_measures, index_measures
from lshbench.evaluation.reference import Reference
from lshbench.evaluation.timing import Clock
from lshbench.evaluation.tradeoff import Measured, Queries, measure_points
from lshbench.index.base import Index
from lshbench.index.buckets import BucketsIndex
from lshbench.index.compressed_engines import PqFastScanEngine
from lshbench.index.flat import FlatIndex
from lshbench.ranking.cosine import cosine_neighbors
from lshbench.types import Codes, Encoded, Listed, RankedBlock, Relevance

COSINE: dict[str, float | None] = {"mAP": 0.5, "P@10": 0.6, "P@50": 0.55}


def measured_with(index: Index, reference: Reference | None) -> tuple[Measured, Loss]:
    gallery, queries, relevance = sides()
    measured = measure_points(
        index.build(gallery), Queries(queries, relevance, lambda start, stop: queries[start:stop]), reference,
        k=20, definitions=False, description="ranking", clock=Clock(), progress=silent,
    )  # fmt: skip
    of_index = index_measures(index, measured, queries, relevance, reference)
    codes = code_measures(index, of_index, gallery, queries, relevance, reference, silent)
    return measured, Loss(feature_measures(reference), codes, of_index)


def exact_reference() -> Reference:
    gallery, queries, _ = sides()
    return Reference(COSINE, np.empty(0), np.empty(0), cosine_neighbors(queries.features, gallery.features, 100).ids)


def expected_precision(gallery: Encoded, queries: Encoded, relevance: Relevance, k: int) -> float:
    """P@k in the expectation over ties, item by item: an item's chance to be among the first k."""
    differing = (queries.binary.unpack()[:, None] != gallery.binary.unpack()[None]).sum(axis=2)
    total = 0.0
    for distances, label in zip(differing, relevance.queries, strict=True):
        for distance, other in zip(distances, relevance.gallery, strict=True):
            nearer, tied = (distances < distance).sum(), (distances == distance).sum()
            total += (label == other) * min(max((k - nearer) / tied, 0), 1) / k
    return total / len(queries)


def expected_recall(gallery: Encoded, queries: Encoded) -> float:
    """The chances of the ten nearest by cosine to be among the first ten by Hamming distance."""
    differing = (queries.binary.unpack()[:, None] != gallery.binary.unpack()[None]).sum(axis=2)
    cosines = queries.features @ (gallery.features / np.linalg.norm(gallery.features, axis=1)[:, None]).T
    total = 0.0
    for distances, nearest in zip(differing, np.argsort(-cosines, axis=1)[:, :10], strict=True):
        for distance in distances[nearest]:
            nearer, tied = (distances < distance).sum(), (distances == distance).sum()
            total += min(max((10 - nearer) / tied, 0), 1) / 10
    return total / len(queries)


def test_codes_are_ranked_alone_where_the_index_skips_items_and_rescores() -> None:
    gallery, queries, relevance = sides()
    measured, loss = measured_with(BucketsIndex(tables=1, bits_per_table=4), exact_reference())
    assert loss.codes is not None
    assert loss.codes["P@10"] == pytest.approx(expected_precision(gallery, queries, relevance, 10))
    assert loss.codes["recall@10"] == pytest.approx(expected_recall(gallery, queries))
    assert loss.index["mAP"] == measured.evaluation.summary["metrics"]["mAP"]
    assert loss.index["recall@10"] == measured.recall != loss.codes["recall@10"]
    assert loss.features == COSINE | {"recall@10": 1.0}


def test_an_exhaustive_index_of_codes_has_made_their_ranking_already(monkeypatch: pytest.MonkeyPatch) -> None:
    index = FlatIndex()
    gallery, queries, relevance = sides()
    measured, loss = measured_with(index, exact_reference())
    monkeypatch.setattr(FlatIndex, "build", lambda *_: pytest.fail("ranked again"))
    assert code_measures(index, loss.index, gallery, queries, relevance, exact_reference(), silent) == loss.index
    assert loss.index["recall@10"] == pytest.approx(expected_recall(gallery, queries)) != measured.recall


def test_features_alone_have_no_codes_and_without_a_reference_no_recall() -> None:
    _, alone = measured_with(FlatIndex(gives="nothing"), exact_reference())
    assert alone.codes is None
    assert alone.index["recall@10"] == 1.0
    _, loss = measured_with(BucketsIndex(tables=1, bits_per_table=4), None)
    assert loss.features is None
    assert loss.codes is not None
    assert loss.codes["recall@10"] is None


def short_codes(features: np.ndarray) -> Codes:
    """Return codes of six bits, with projections: many of 200 items tie."""
    projections = features[:, :6]
    return replace(Codes.from_signs(projections), projections=projections)


@pytest.mark.parametrize("left_out", [0, 3])
@pytest.mark.parametrize(
    ("make", "more"), [(lambda: FlatIndex(ranking="asymmetric"), 4), (lambda: PqFastScanEngine(nbits=8), 1)]
)
def test_recall_is_that_of_whole_rankings_where_first_results_decide_it(
    make: Callable[[], Index], more: int, left_out: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery, queries, relevance = sides()
    gallery, queries = (Encoded(side.features, short_codes(side.features)) for side in (gallery, queries))
    index, reference = make().build(gallery), exact_reference()
    others = [np.setdiff1d(np.arange(200), nearest)[-left_out:] for nearest in reference.neighbors[:, :10]]
    rows = np.concatenate(others) if left_out else np.empty(0, np.int64)
    out = Listed(left_out * np.arange(41), rows, np.full(len(rows), -1, np.float32))
    relevance = replace(relevance, listed=out)
    monkeypatch.setattr(losses, "MORE", more)
    ranked: list[int] = []
    rank = type(index).rank

    def counted(self: Index, asked: Encoded, lists: Relevance, *, positions: int) -> Iterator[RankedBlock]:
        ranked.append(len(asked))
        return rank(self, asked, lists, positions=positions)

    monkeypatch.setattr(type(index), "rank", counted)
    found = losses.expected_recall(index, queries, relevance, reference)
    assert 0 < ranked[0] < 40  # some ties end within the first results, some don't
    monkeypatch.setattr(losses, "_settle", lambda index, asked, *_: np.arange(len(asked)))
    assert found == pytest.approx(losses.expected_recall(index, queries, relevance, reference), abs=1e-12)
