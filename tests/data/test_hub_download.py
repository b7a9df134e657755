"""Downloading from a Hub: what is fetched, what is retried, what works without it.

Each step runs in a process of its own, as `huggingface_hub` reads its environment when it is imported.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import COMMIT, HubServer

from tests.command import run_code

PROGRAM = """
import json, logging, sys
from contextlib import contextmanager
import numpy as np
from lshbench.data.hub import HubSource
from lshbench.errors import UsageError
from lshbench.runtime.cache import cache_dir

logging.basicConfig(level=logging.INFO, format="%(message)s")
told = []

@contextmanager
def progress(description, *, total, unit):
    counts = []
    yield counts.append
    told.append([description, total, unit, sum(counts)])

try:
    data = HubSource(**json.loads('%s')).open(cache_dir(), progress)
    sample = data.gallery.read_features(np.arange(3), progress).tolist()
    print(json.dumps({"gallery": len(data.gallery), "query": data.query.name, "sample": sample,
                      "fingerprint": data.gallery.fingerprint(), "told": told}))
except UsageError as error:
    print(json.dumps({"error": str(error)}))
"""

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def repositories(tmp_path: Path) -> Path:
    folder = tmp_path / "hub" / "owner" / "made" / "data"
    folder.mkdir(parents=True)
    for seed, (name, rows) in enumerate(
        [
            ("train-00000-of-00002", 40),
            ("train-00001-of-00002", 40),
            ("test-00000-of-00001", 10),
            ("val-00000-of-00001", 9),
        ]
    ):
        x = np.random.default_rng(seed).standard_normal((rows, 8)).astype(np.float32)
        labels = np.full(rows, -1) if name.startswith("test") else np.arange(rows) % 3
        pq.write_table(pa.table({"features": list(x), "label": labels}), folder / f"{name}.parquet")
    return tmp_path / "hub"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Open a repository in a new process; its caches stay from call to call."""

    def call(endpoint: str, home: str = "home", offline: bool = False, **keys: object) -> dict[str, Any]:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))},
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(tmp_path / home),
            "LSHBENCH_CACHE": str(tmp_path / f"{home}-cache"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        if offline:
            environment["HF_HUB_OFFLINE"] = "1"
        done = run_code(PROGRAM.replace("%s", json.dumps({"repository": "owner/made", **keys})), tmp_path, environment)
        assert done.returncode == 0, done.stderr[-3000:]
        return {**json.loads(done.stdout.splitlines()[-1]), "log": done.stderr}

    return call


def test_a_split_is_downloaded_once_and_works_without_the_hub_from_then_on(repositories: Path, run: Run) -> None:
    with HubServer(repositories).running() as hub:
        first = run(hub.endpoint, query_split="val")
        assert (first["gallery"], first["query"]) == (80, "val")
        assert sorted(hub.downloads) == [
            "train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "val-00000-of-00001.parquet",
        ]  # fmt: skip
        downloads = [line for line in first["told"] if line[0].startswith("downloading")]
        assert all(total == advanced for _, total, _, advanced in downloads)
        assert [line[2] for line in downloads] == ["bytes", "bytes"]
        hub.downloads.clear()
        second = run(hub.endpoint, query_split="val")
        assert hub.downloads == []
        endpoint = hub.endpoint
    stopped = run(endpoint, query_split="val")
    assert "can't be reached" in stopped["log"]
    offline = run(endpoint, query_split="val", offline=True)
    for later in (second, stopped, offline):
        assert (later["sample"], later["fingerprint"]) == (first["sample"], first["fingerprint"])


def test_failing_downloads_are_tried_again(repositories: Path, run: Run) -> None:
    with HubServer(repositories, failures=3).running() as hub:
        done = run(hub.endpoint, query_split="val")
        assert done["gallery"] == 80
        assert hub.failures == 0
    whole = pq.read_table(repositories / "owner" / "made" / "data" / "train-00000-of-00002.parquet")
    np.testing.assert_array_equal(np.array(done["sample"], np.float32), whole["features"].to_pylist()[:3])


@pytest.mark.slow
def test_a_local_copy_has_the_fingerprint_of_the_download(repositories: Path, run: Run) -> None:
    with HubServer(repositories).running() as hub:
        downloaded = run(hub.endpoint, query_split="val")
        local = run(hub.endpoint, path=str(repositories / "owner" / "made"), query_split="val")
    assert downloaded["fingerprint"] == local["fingerprint"]


@pytest.mark.slow
def test_no_hub_and_no_copy_says_what_was_tried_and_what_else_there_is(repositories: Path, run: Run) -> None:
    with HubServer(repositories).running() as hub:
        endpoint = hub.endpoint
        assert f"{endpoint} has no such data set" in run(endpoint, repository="no/body")["error"]
    start = time.monotonic()
    error = run(endpoint)["error"]
    assert time.monotonic() - start < 30
    for words in (endpoint, "owner/made", "dataset.path=", "HF_HUB_OFFLINE=1", "dataset=digits"):
        assert words in error
    assert "HF_HUB_OFFLINE is set" in run(endpoint, offline=True)["error"]


@pytest.mark.slow
def test_a_split_that_was_never_downloaded_is_named_without_the_hub(repositories: Path, run: Run) -> None:
    with HubServer(repositories).running() as hub:
        run(hub.endpoint, query_split="val")
    missing = run(hub.endpoint, query_split="test", offline=True)
    assert "files of split 'test' are not in the Hub's cache" in missing["error"]


@pytest.mark.slow
def test_a_repository_that_has_moved_on_is_read_again_and_said_to(repositories: Path, run: Run) -> None:
    with HubServer(repositories).running() as hub:
        first = run(hub.endpoint, query_split="val")
        file = repositories / "owner" / "made" / "data" / "train-00000-of-00002.parquet"
        pq.write_table(pq.read_table(file).slice(0, 20), file)
        hub.commit = "b" * 40
        second = run(hub.endpoint, query_split="val")
    assert f"owner/made has moved on from commit {COMMIT}" in second["log"]
    assert f"revision main is commit {'b' * 40}" in second["log"]
    assert (first["gallery"], second["gallery"]) == (80, 60)
    assert first["fingerprint"] != second["fingerprint"]
