"""Data without labels: what needs none runs, by true neighbours; what needs some is refused before any work."""

from __future__ import annotations

import json
from pathlib import Path

import faiss
import h5py
import numpy as np
import pytest

from tests.conftest import Command

QUICK = ("relevance=neighbors", "relevance.k=10", "bits=16", "reference.time=false", "evaluation.plots=false")


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as ann-benchmarks makes them: 400 vectors, 30 queries, 10 neighbours by cosine."""
    random = np.random.default_rng(0)
    train, test = (random.standard_normal((count, 24)).astype(np.float32) for count in (400, 30))
    cosine = (test / np.linalg.norm(test, axis=1)[:, None]) @ (train / np.linalg.norm(train, axis=1)[:, None]).T
    nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :10]
    path = tmp_path_factory.mktemp("vectors") / "made.hdf5"
    with h5py.File(path, "w") as file:
        file.attrs["distance"] = "angular"
        file["train"], file["test"], file["neighbors"] = train, test, nearest.astype(np.int32)
        file["distances"] = 1 - np.take_along_axis(cosine, nearest, axis=1)
    return path


def test_a_file_of_annbenchmarks_runs_and_recall_is_faiss_own(vectors: Path, lshbench: Command, tmp_path: Path) -> None:
    done = lshbench("run", "dataset=features", f"dataset.path={vectors}", "method=itq", *QUICK)
    assert "in the gallery, no labels" in " ".join(done.stdout.split())
    (file,) = tmp_path.glob("outputs/*/itq/*/metrics.json")
    metrics = json.loads(file.read_text())
    stored = {name: np.load(file.parent / "codes" / f"{name}.npy") for name in ("gallery", "queries")}
    index = faiss.IndexBinaryFlat(16)
    index.add(stored["gallery"])
    with h5py.File(vectors) as opened:
        true = opened["neighbors"][:]
    distances, _ = index.search(stored["queries"], len(stored["gallery"]))
    ids = np.load(file.parent / "neighbors.npz")["ids"][:, :10]
    found = np.mean([len(np.intersect1d(one, other)) for one, other in zip(ids, true, strict=True)]) / 10
    assert metrics["search"]["recall@10/neighbors"] == pytest.approx(found, abs=1e-12)
    bits = np.unpackbits(stored["queries"], axis=1)[:, None] != np.unpackbits(stored["gallery"], axis=1)
    np.testing.assert_array_equal(np.sort(bits.sum(2), axis=1), distances)


def test_a_method_that_needs_labels_is_refused_and_says_which_do_not(vectors: Path, lshbench: Command) -> None:
    done = lshbench("run", "dataset=features", f"dataset.path={vectors}", "method=csq", *QUICK, check=False)
    message = " ".join(done.stderr.split())
    assert done.returncode == 2
    assert "Csq is trained with labels, and the data set has none: expected labels, or a method that needs" in message
    named = message.rpartition("needs none: ")[2].split(", ")
    assert {"itq", "none", "pq", "fourier_unsupervised", "neural_unsupervised"} <= {*named}
    assert not {"csq", "fourier", "fourier_paper", "neural"} & {*named}
