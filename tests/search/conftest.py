"""Finished runs that tests search, made once for all processes of the test session."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from lshbench.run_folder import finished_runs
from tests.command import run_command

GALLERY, QUERIES = 300, 12
DIGITS = (
    "dataset=digits", f"dataset.max_gallery={GALLERY}", f"dataset.max_queries={QUERIES}", "backbone=pixels",
    "backbone.image_size=8",
)  # fmt: skip
BARE = (
    "evaluation.plots=false",
    "evaluation.definitions=false",
    "reference.cosine=false",
    "reference.classifier=false",
)
RUNS = {
    "random_projection": (*DIGITS, "method=random_projection", "bits=30"),
    "sq": (*DIGITS, "method=sq", "bits=96"),
    "kmeans": (*DIGITS, "method=kmeans", "method.clusters=5", "index.nprobe=[1,2]"),
    # A trained network behind PCA, and an index that compares the features in the cache.
    "neural": (
        *DIGITS, "method=neural", "method.training.epochs=1", "bits=12", "pca.dim=0.9", "index=buckets",
        "index.tables=2", "index.probes=2",
    ),
    "features": ("dataset=features", "dataset.path=features.npz", "method=random_projection", "bits=8"),
    "compared": (
        "dataset=features", "dataset.path=features.npz", "method=random_projection", "bits=8", "index=buckets",
        "index.tables=2", "cache=own",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(shared_folder: Path, shared_cache: Path) -> dict[str, Path]:
    """Folders of finished runs, by name; the first process that asks makes them for all."""
    place = shared_folder / "searched-runs"
    with FileLock(shared_folder / "searched-runs.lock"):
        if not (place / "made").exists():
            place.mkdir()
            _make_runs(place, shared_cache)
            (place / "made").touch()
    return {run.path.name: run.path for run in finished_runs(place)}


def _make_runs(place: Path, cache: Path) -> None:
    labels = np.arange(60) % 3
    vectors = np.random.default_rng(0).normal(size=(60, 8)) + 3 * np.eye(8)[labels]
    np.savez(place / "features.npz", features=vectors.astype(np.float32), labels=labels)
    environment = {**os.environ, "LSHBENCH_CACHE": str(cache)}
    for name, keys in RUNS.items():
        done = run_command(["run", *keys, *BARE, f"hydra.run.dir={name}"], place, environment)
        assert done.returncode == 0, done.stderr


@pytest.fixture(autouse=True)
def cache(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSHBENCH_CACHE", str(shared_cache))
