"""Splits that are read from Parquet files in parts: the same items as a download's, and no more bytes than needed."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import HubServer
from PIL import Image

from lshbench.data.base import Dataset
from lshbench.data.hub import HubSource
from lshbench.data.pieces import Pieces, ReadAhead
from lshbench.errors import UsageError
from lshbench.runtime.cache import cache_dir
from lshbench.types import Progress
from tests.command import run_code
from tests.data.tars import write_tar

GROUP = 10


def png(value: int) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(value).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(file, "png")
    return file.getvalue()


def npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two files of 60 images each and one of 20 queries, ordered by class, in the Hub's layout."""
    folder = tmp_path / "hub" / "owner" / "made" / "data"
    folder.mkdir(parents=True)
    for name, first, count in (
        ("train-00000-of-00002", 0, 60),
        ("train-00001-of-00002", 60, 60),
        ("test-00000-of-00001", 0, 20),
    ):
        labels = np.arange(first, first + count) // 30 if name.startswith("train") else np.arange(count) % 4
        files = [{"bytes": png(first + i), "path": None} for i in range(count)]
        table = pa.table({"image": files, "label": labels})
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=GROUP)
    return tmp_path / "hub"


def opened(folder: Path, silent: Progress, **keys: object) -> Dataset:
    return HubSource(path=str(folder / "owner" / "made"), **keys).open(cache_dir(), silent)  # type: ignore[arg-type]


def test_a_streamed_split_is_the_converted_one(images: Path, silent: Progress) -> None:
    streamed, converted = (opened(images, silent, stream=stream) for stream in (True, "auto"))
    assert type(streamed.gallery).__name__ == "StreamedSplit"
    assert type(converted.gallery).__name__ == "HubSplit"
    assert streamed.fingerprint(streamed.query_items) == converted.fingerprint(converted.query_items)
    assert np.array_equal(streamed.labels, converted.labels)
    for rows in (np.arange(120), np.array([119, 0, 61, 60, 9, 10])):
        assert list(streamed.gallery.image_bytes(rows)) == list(converted.gallery.image_bytes(rows))
    assert streamed.gallery.bytes_of(np.array([0, 9])) == streamed.gallery.pieces.sizes[0]  # type: ignore[attr-defined]


def test_features_are_streamed_too(tmp_path: Path, silent: Progress) -> None:
    folder = tmp_path / "owner" / "made"
    folder.mkdir(parents=True)
    x = np.random.default_rng(0).standard_normal((50, 6)).astype(np.float32)
    for split, rows in (("train", slice(0, 40)), ("test", slice(40, 50))):
        table = pa.table({"features": list(x[rows]), "label": np.arange(50)[rows] % 3})
        pq.write_table(table, folder / f"{split}.parquet", row_group_size=7)
    data = opened(tmp_path, silent, stream=True)
    rows = np.array([39, 0, 7, 6])
    assert np.array_equal(data.gallery.read_features(rows, silent), x[rows])
    assert data.fingerprint(data.query_items) == opened(tmp_path, silent).fingerprint(data.query_items)


def test_files_that_can_not_be_streamed_are_named(images: Path, tmp_path: Path, silent: Progress) -> None:
    data = images / "owner" / "made" / "data"
    with pytest.raises(UsageError, match=r"dataset\.stream='yes'"):
        opened(images, silent, stream="yes")
    (data / "train-00001-of-00002.parquet").write_bytes(b"no file")
    with pytest.raises(UsageError, match=r"train-00001-of-00002\.parquet is damaged, or no Parquet file"):
        opened(images, silent, stream=True)
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    files = pa.array([{"bytes": None, "path": "elsewhere.png"}] * 3, kind)
    pq.write_table(pa.table({"image": files, "label": [0, 1, 2]}), data / "train-00001-of-00002.parquet")
    with pytest.raises(UsageError, match="3 images of column 'image' lie in files of their own"):
        opened(images, silent, stream=True)
    made = tmp_path / "text" / "owner" / "made"
    made.mkdir(parents=True)
    for split in ("train", "test"):
        (made / f"{split}.csv").write_text("label,x\n0,1\n1,2\n")
    with pytest.raises(UsageError, match=r"dataset\.stream=True: expected false or auto"):
        opened(tmp_path / "text", silent, stream=True)


class Counting(Pieces):
    """Ten pieces of four rows, each a number; counts how often each was read."""

    starts, remote = np.arange(0, 44, 4), True

    def __init__(self, size: int, bad: int | None = None) -> None:
        self.sizes, self.bad = np.full(10, size), bad
        self.reads: list[int] = []

    def read(self, piece: int) -> list[bytes]:
        self.reads.append(piece)
        if piece == self.bad:
            self.bad = None
            raise UsageError("once")
        return [b"%d" % row for row in range(4 * piece, 4 * piece + 4)]


def test_pieces_are_read_once_in_whatever_order_rows_are_asked_for() -> None:
    pieces = Counting(1)
    ahead = ReadAhead(pieces)
    rows = np.random.default_rng(0).permutation(40)
    assert [int(value) for value in ahead.rows(rows)] == rows.tolist()
    assert sorted(pieces.reads) == list(range(10))


def test_large_pieces_do_not_stay_and_are_not_read_ahead() -> None:
    pieces = Counting(100 << 20)
    values = ReadAhead(pieces).rows(np.arange(40))
    assert next(values) == b"0"
    assert pieces.reads == [0]
    assert [int(value) for value in values] == list(range(1, 40))


def test_a_piece_that_could_not_be_read_is_read_again_later() -> None:
    ahead = ReadAhead(Counting(1, bad=1))
    with pytest.raises(UsageError, match="once"):
        list(ahead.rows(np.arange(8)))
    assert list(ahead.rows(np.array([4]))) == [b"4"]


PROGRAM = """
import hashlib, json, logging
from contextlib import contextmanager
import numpy as np
from lshbench.data import hub_client
from lshbench.data.hub import HubSource
from lshbench.errors import UsageError
from lshbench.runtime.cache import cache_dir

logging.basicConfig(level=logging.INFO, format="%(message)s")
hub_client.LONGEST_PAUSE = 0.02

@contextmanager
def silent(description, *, total, unit):
    yield int

keys = json.loads('%s')
rows = keys.pop("rows", None)
try:
    data = HubSource(repository="owner/made", **{"stream": True, **keys}).open(cache_dir(), silent)
    images = data.gallery.image_bytes(np.arange(len(data.gallery)) if rows is None else np.array(rows, int))
    print(json.dumps({"labels": data.labels.tolist(), "fingerprint": data.fingerprint(data.query_items),
                      "images": hashlib.sha256(b"".join(images)).hexdigest()}))
except UsageError as error:
    print(json.dumps({"error": str(error)}))
"""

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Open a repository in a new process, as `huggingface_hub` reads its environment when it is imported."""

    def call(endpoint: str, token: str | None = None, home: str = "home", **keys: object) -> dict[str, Any]:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))},
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(tmp_path / home),
            "LSHBENCH_CACHE": str(tmp_path / f"{home}-cache"),
            **({"HF_TOKEN": token} if token else {}),
        }
        done = run_code(PROGRAM.replace("%s", json.dumps(keys)), tmp_path, environment)
        assert done.returncode == 0, done.stderr[-3000:]
        return {**json.loads(done.stdout.splitlines()[-1]), "log": done.stderr}

    return call


def test_a_split_of_the_hub_is_streamed_through_bad_answers_and_nothing_is_kept_of_it(
    images: Path, run: Run, tmp_path: Path, silent: Progress
) -> None:
    local = opened(images, silent)
    with HubServer(images, failures=9).running() as hub:
        whole = run(hub.endpoint)
        assert hub.failures == 0
    assert whole["labels"] == local.labels.tolist()
    assert whole["fingerprint"] == local.fingerprint(local.query_items)
    files = b"".join(local.gallery.image_bytes(np.arange(120)))  # type: ignore[arg-type]
    assert whole["images"] == hashlib.sha256(files).hexdigest()
    assert "try 2 of 10" in whole["log"]
    assert not list((tmp_path / "home").rglob("*.parquet")), "a file was downloaded"


@pytest.mark.slow
def test_no_more_is_read_than_needed_and_labels_once(images: Path, run: Run) -> None:
    with HubServer(images).running() as hub:
        first = run(hub.endpoint, rows=[0, 1, 100])
        size = sum(path.stat().st_size for path in images.rglob("*.parquet"))
        assert hub.sent < size / 2
        endpoint = hub.endpoint
    gone = run(endpoint, rows=[])
    assert gone["labels"] == first["labels"]
    assert "going on with the cached copy" in gone["log"]


@pytest.mark.slow
def test_what_the_hub_refuses_is_explained(images: Path, run: Run) -> None:
    with HubServer(images).running() as hub:
        hub.token = "right"
        assert "or it is private and HF_TOKEN is not set" in run(hub.endpoint)["error"]
        assert "asks for a valid token: the token in HF_TOKEN" in run(hub.endpoint, token="wrong")["error"]
        assert "fingerprint" in run(hub.endpoint, token="right")
        # Also with a copy of all that was asked for before.
        assert "asks for a valid token" in run(hub.endpoint, token="wrong", rows=[])["error"]
        hub.gated = True
        assert "access has to be granted" in run(hub.endpoint, token="right")["error"]


@pytest.mark.slow
def test_tar_files_of_the_hub_are_read_in_parts_or_downloaded_and_never_converted(
    tmp_path: Path, run: Run, silent: Progress
) -> None:
    folder = tmp_path / "hub" / "owner" / "made"
    for name, first, count in (("train-0.tar", 0, 60), ("train-1.tar", 60, 20), ("test-0.tar", 80, 10)):
        members = [
            (f"{row:04}.{suffix}", content)
            for row in range(first, first + count)
            for suffix, content in (("cls", b"%d" % (row % 4)), ("png", png(row)))
        ]
        write_tar(folder / name, members)
    local = opened(tmp_path / "hub", silent)
    assert type(local.gallery).__name__ == "TarSplit"
    assert list(local.gallery.image_bytes(np.array([79, 3]))) == [png(79), png(3)]
    with HubServer(tmp_path / "hub", failures=5).running() as hub:
        streamed = run(hub.endpoint)
        assert not list((tmp_path / "home").rglob("*.tar")), "a file was downloaded"
        downloaded = run(hub.endpoint, home="other", stream=False)
        assert len(list((tmp_path / "other").rglob("*.tar"))) == 3
        hub.sent = 0
        some = run(hub.endpoint, rows=[70])
        assert hub.sent < 3 * len(png(70)), "labels were read again"
    for found in (streamed, downloaded, some):
        assert found["labels"] == local.labels.tolist()
        assert found["fingerprint"] == local.fingerprint(local.query_items)
    assert streamed["images"] == downloaded["images"]
    assert not list(tmp_path.rglob("*.arrow"))
    of_arrays = tmp_path / "hub" / "owner" / "arrays"
    for split in ("train", "test"):
        vectors = [np.arange(row, row + 4, dtype=np.float32) for row in range(6)]
        named = [(f"{row}.{end}", row) for row in range(6) for end in ("npy", "cls")]
        members = [(name, npy(vectors[row]) if name.endswith("npy") else b"%d" % (row % 2)) for name, row in named]
        write_tar(of_arrays / f"{split}.tar", members)
    features = HubSource(path=str(of_arrays)).open(cache_dir(), silent)
    assert features.kind == "features"
    assert np.array_equal(features.query.read_features(np.array([5]), silent), [[5, 6, 7, 8]])
