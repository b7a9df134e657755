"""Runs by other relevance than shared labels, and runs in which every item queries all others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lshbench.index.base import Index
from lshbench.index.binary_engines import BinaryHashEngine
from lshbench.index.buckets import BucketsIndex
from lshbench.index.engines import HnswEngine, LshEngine
from lshbench.index.flat import FlatIndex
from lshbench.index.ivf import IvfIndex
from lshbench.index.oversampled import OversampledIndex
from lshbench.metrics.measures import concatenate, measure
from lshbench.ranking.lists import list_blocks
from lshbench.relevance.base import listed_pairs, without_own
from lshbench.types import Codes, Encoded, Relevance
from tests.conftest import Command

DATA = (
    "dataset=synthetic", "dataset.items=240", "dataset.queries=60", "dataset.classes=4", "bits=16",
    "method=random_projection", "evaluation.plots=false", "reference.time=false",
)  # fmt: skip


def metrics_of(folder: Path) -> dict[str, Any]:
    (path,) = folder.rglob("metrics.json")
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_item_queries_all_others_and_reports_keep_rules_apart(lshbench: Command, tmp_path: Path) -> None:
    done = lshbench("run", *DATA, "protocol=leave_one_out", "output=one")
    assert "300 queries are left out of their own rankings, and 300 are in training" in " ".join(done.stdout.split())
    assert "LEAK" not in done.stdout
    found = metrics_of(tmp_path / "one")
    protocol, dataset = found["protocol"], found["dataset"]
    assert (dataset["gallery"], dataset["queries"], dataset["train"]) == (300, 300, 300)
    assert (protocol["leave_one_out"], protocol["leak"], protocol["query_gallery_overlap"]) == (True, False, 300)
    assert found["relevance"]["left_out"] == 300
    (run,) = (path.parent for path in (tmp_path / "one").rglob("metrics.json"))
    ids = np.load(run / "neighbors.npz")["ids"]
    assert ids.shape == (300, 100)
    assert not (ids == np.arange(300)[:, None]).any()
    bits = np.unpackbits(np.load(run / "codes/gallery.npy"), axis=1)
    labels = np.load(run / "codes/gallery_labels.npy")
    distances = (bits[:, None] != bits).sum(axis=2)
    others = ~np.eye(300, dtype=bool)
    assert found["relevance"]["mean"] == pytest.approx(((labels[:, None] == labels) & others).sum(1).mean(), abs=1e-12)
    assert found["metrics"]["mAP"] == pytest.approx(
        expected_map(distances, labels[:, None] == labels, others), abs=1e-12
    )

    lshbench("run", *DATA, "relevance=neighbors", "relevance.k=10", "output=two")
    found = metrics_of(tmp_path / "two")
    assert found["relevance"]["rule"] == "the 10 nearest by cosine (exact search, ties included)"
    assert found["relevance"]["mean"] == 10
    assert found["reference"]["cosine"]["P@10"] == found["reference"]["cosine"]["mAP"] == 1
    assert found["search"]["recall@10/neighbors"] == found["search"]["recall@10/cosine"]
    lshbench("run", *DATA, "output=three")
    shown = lshbench("report", "two", "three").stdout
    assert "relevant: the 10 nearest by cosine" in shown
    assert "random_projection" in shown


def expected_map(distances: np.ndarray, relevant: np.ndarray, kept: np.ndarray) -> float:
    """Return the mean over queries of AP's expectation, by its definition: item by item, over all ranks of its tie."""
    values = []
    for own, marks, some in zip(distances, relevant, kept, strict=True):
        d, r = own[some], marks[some]
        total = 0.0
        for step in np.unique(d[r]):
            before, tied = d < step, d == step
            n, hits = tied.sum(), (r & tied).sum()
            inside = (hits - 1) / (n - 1) if n > 1 else 0.0
            ranks = before.sum() + np.arange(1, n + 1)
            total += hits / n * (((r & before).sum() + 1 + np.arange(n) * inside) / ranks).sum()
        values.append(total / r.sum() if r.any() else 0.0)
    return float(np.mean(values))


@pytest.mark.parametrize("words", [("relevance=qrels",), ("relevance=neighbors", "relevance.k=241")])
def test_what_the_data_lack_is_said_before_any_work(words: tuple[str, ...], lshbench: Command) -> None:
    done = lshbench("run", *DATA, *words, check=False)
    assert done.returncode == 2
    assert "has no judged pairs" in done.stderr or "at most 240, the items of the gallery" in done.stderr


INDEXES = {
    "flat": lambda: FlatIndex(),
    "asymmetric": lambda: FlatIndex(ranking="asymmetric"),
    "features": lambda: FlatIndex(gives="nothing"),
    "buckets": lambda: BucketsIndex(tables=3, bits_per_table=3, rescore="hamming"),
    "rescored": lambda: BucketsIndex(tables=3, bits_per_table=3),
    "oversampled": lambda: OversampledIndex(FlatIndex(), 3),
    "ivf": lambda: IvfIndex(gives="nothing", clusters=6, nprobe=2),
    "lsh": lambda: LshEngine(nbits=16),
    "hnsw": lambda: HnswEngine(ef_search=400),
    "binary_hash": lambda: BinaryHashEngine(b=3, nflip=1),
}


@pytest.mark.parametrize("name", INDEXES)
@pytest.mark.parametrize("by", ["labels", "lists"])
def test_every_index_ranks_by_lists_and_leaves_queries_out(name: str, by: str) -> None:
    random = np.random.default_rng(5)
    x = random.standard_normal((300, 16)).astype(np.float32)
    sides = Encoded(x, Codes(np.packbits(x > 0, axis=1), 16, x))
    index: Index = INDEXES[name]().build(sides)
    own = np.arange(300)
    if by == "labels":
        labels = random.integers(0, 5, 300)
        relevance = without_own(Relevance(labels, labels), own)
        relevant = labels[:, None] == labels
    else:
        relevant = random.random((300, 300)) < 0.05
        query, rows = np.nonzero(relevant)
        listed = listed_pairs(query, rows, np.ones(len(rows)), 300)
        relevance = without_own(Relevance.of_lists(listed, 300), own)
    found = concatenate([measure(block) for block in index.rank(sides, relevance, positions=0)])
    # What the index gives without the query itself, ranked as lists by a table of labels.
    results = index.search(sides, 300)
    kept = (results.ids >= 0) & (results.ids != own[:, None])
    offsets = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
    marks = relevant & ~np.eye(300, dtype=bool)
    plain = Relevance(np.eye(300, dtype=bool), np.ascontiguousarray(marks.T))
    blocks = list_blocks(offsets, results.ids[kept], results.distances[kept], plain, positions=0)
    wanted = concatenate([measure(block) for block in blocks])
    for key in ("AP", "AP_optimistic", "P@10", "recall@50", "nDCG@10", "RR", "candidates", "relevant"):
        np.testing.assert_allclose(found[key], wanted[key], rtol=0, atol=1e-12, err_msg=key)
