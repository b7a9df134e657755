"""Data without labels: what needs none runs, by true neighbours; what needs some is refused before any work."""

from __future__ import annotations

import json
from pathlib import Path

import faiss
import h5py
import numpy as np
import pytest
from PIL import Image

from lshbench.config import options
from lshbench.data.folder import FolderSource
from lshbench.data.lists import ListSource
from lshbench.errors import UsageError
from lshbench.system import methods_without_labels
from lshbench.types import Progress, is_unlabelled
from tests.conftest import Command

QUICK = ("relevance=neighbors", "relevance.k=10", "bits=32", "reference.time=false", "evaluation.plots=false")


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
    lshbench("run", "dataset=features", f"dataset.path={vectors}", "method=itq", *QUICK)
    (file,) = tmp_path.glob("outputs/*/itq/*/metrics.json")
    metrics = json.loads(file.read_text())
    stored = {name: np.load(file.parent / "codes" / f"{name}.npy") for name in ("gallery", "queries")}
    index = faiss.IndexBinaryFlat(32)
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
    assert "itq, kmeans" in message


def test_methods_without_labels_are_all_that_say_so() -> None:
    found = methods_without_labels()
    assert {"itq", "none", "pq", "fourier_unsupervised", "neural_unsupervised"} <= {*found}
    assert not {"csq", "fourier", "fourier_paper", "neural"} & {*found}
    assert {*found} < {name for name, _ in options("method")}


def images(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / name)


def test_folders_and_lists_without_labels_open_where_none_are_needed(tmp_path: Path, silent: Progress) -> None:
    images(tmp_path / "d", "gallery/0.png", "gallery/1.png", "queries/2.png")
    (tmp_path / "g.txt").write_text("gallery/0.png\ngallery/1.png\n")
    (tmp_path / "q.txt").write_text("queries/2.png\n")
    folder = FolderSource(path=str(tmp_path / "d"))
    listed = ListSource(gallery=str(tmp_path / "g.txt"), queries=str(tmp_path / "q.txt"), root=str(tmp_path / "d"))
    for source, message in ((folder, "called like splits but hold images"), (listed, "has no label")):
        with pytest.raises(UsageError, match=message):
            source.open(tmp_path / "cache", silent)
        source.labels_needed = False
        data = source.open(tmp_path / "cache", silent)
        assert is_unlabelled(data.labels)
        assert [data.image(item).getpixel((0, 0))[0] for item in range(3)] == [0, 1, 2]


def test_a_list_with_labels_on_some_lines_only_is_refused(tmp_path: Path, silent: Progress) -> None:
    images(tmp_path, "0.png", "1.png")
    (tmp_path / "g.txt").write_text("0.png a\n1.png\n")
    source = ListSource(gallery=str(tmp_path / "g.txt"))
    source.labels_needed = False
    with pytest.raises(UsageError, match=r"g\.txt, line 2: no label, but others have one"):
        source.open(tmp_path / "cache", silent)
