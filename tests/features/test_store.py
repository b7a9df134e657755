"""The store gives back what was put in, whatever happens to its processes, its files or its disk."""

from __future__ import annotations

import errno
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lshbench.errors import UsageError
from lshbench.features.filling import ArrayFile, Filling, Made
from lshbench.features.store import FeatureStore

KEY = {"data": "sha256:1", "rows": "all", "backbone": {"name": "a", "size": 32}}
X = np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32)
DIGESTS = np.arange(20, dtype=np.uint64)
SHARD = 6


class Counted:
    """Fills an entry with `X`, and counts the rows made."""

    def __init__(self, dtype: str = "float32", stop_before: int = 99) -> None:
        self.dtype, self.stop_before = dtype, stop_before
        self.starts: list[int] = []

    def __call__(self, entry: Filling) -> None:
        def make(shards: Iterator[range]) -> Iterator[Made]:
            for shard in shards:
                if shard.start >= self.stop_before:
                    raise RuntimeError("half way")
                self.starts.append(shard.start)
                entry.write(shard.start, X[shard.start : shard.stop])
                yield Made(shard, DIGESTS[shard.start : shard.stop], [(3, "odd")] if 3 in shard else [])

        entry.create(X.shape[1], self.dtype)
        entry.fill(make)


def fill(cache: Path, filler: Counted | None = None) -> tuple[np.ndarray, int]:
    entry, made = FeatureStore(cache).get_or_fill(KEY, 20, filler or Counted(), SHARD)
    assert np.array_equal(entry.digests, DIGESTS)
    assert entry.unreadable == [(3, "odd")]
    return entry.x, made


def content(cache: Path) -> dict[str, bytes]:
    """Return the files of all entries but locks."""
    folder = cache / "features"
    files = (path for path in folder.rglob("*") if path.is_file() and "lock" not in path.name)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def entry_folder(cache: Path) -> Path:
    (folder,) = (cache / "features").iterdir()
    return folder


def test_what_was_made_is_found_again_and_not_made_again(tmp_path: Path) -> None:
    assert fill(tmp_path)[1] == 20
    # The order of a key's parts has no meaning.
    entry, made = FeatureStore(tmp_path).get_or_fill(dict(reversed(KEY.items())), 20, pytest.fail)
    assert made == 0
    assert np.array_equal(entry.x, X)
    assert isinstance(entry.x, np.memmap)
    assert not entry.x.flags.writeable
    assert np.array_equal(np.load(entry.folder / "features.npy", mmap_mode="r", allow_pickle=False), X)
    assert np.array_equal(np.load(entry.folder / "digests.npy", allow_pickle=False), DIGESTS)


def test_what_another_process_takes_back_is_said_to_be(tmp_path: Path) -> None:
    def fill_and_lose(entry: Filling) -> None:
        Counted()(entry)
        Filling(entry.folder, 20, SHARD).forget()

    with pytest.raises(UsageError, match=f"{tmp_path}.* taken back by another process.*run again"):
        FeatureStore(tmp_path).get_or_fill(KEY, 20, fill_and_lose, SHARD)
    assert fill(tmp_path)[1] == 20


def test_another_key_has_another_entry(tmp_path: Path) -> None:
    fill(tmp_path)
    assert FeatureStore(tmp_path).find({**KEY, "rows": "some"}) is None


def test_blocks_may_be_written_in_any_order(tmp_path: Path) -> None:
    with ArrayFile(tmp_path / "x.npy", X.shape, "<f4") as file:
        for start in (12, 0, 5):
            file.write(start, X[start : {0: 5, 5: 12, 12: 20}[start]])
    assert np.array_equal(np.load(tmp_path / "x.npy", allow_pickle=False), X)


def test_half_precision_takes_half_the_space_and_refuses_what_does_not_fit(tmp_path: Path) -> None:
    x, _ = fill(tmp_path, Counted("float16"))
    assert x.dtype == np.float16
    assert np.array_equal(x, X.astype(np.float16))

    def too_large(entry: Filling) -> None:
        entry.create(6, "float16")
        entry.write(0, X * 1e6)

    with pytest.raises(UsageError, match=r"backbone\.stored=float16"):
        FeatureStore(tmp_path / "other").get_or_fill(KEY, 20, too_large)


def test_what_failed_half_way_goes_on_from_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path / "undisturbed")
    with pytest.raises(RuntimeError, match="half way"):
        fill(tmp_path / "a", Counted(stop_before=12))
    assert FeatureStore(tmp_path / "a").find(KEY) is None, "half an entry was seen"
    for place in (entry_folder(tmp_path / "a"), entry_folder(tmp_path / "a") / "shards"):
        (place / ".meta.json.0123abcd").write_text("{")  # of a process killed between writing a file and naming it
        (place / ".meta.json.4567cdef").mkdir()  # can't be removed, as one of another user
        (place / ".nfs0123").touch()
    rest = Counted()
    with caplog.at_level(logging.INFO):
        assert fill(tmp_path / "a", rest)[1] == 8
    assert rest.starts == [12, 18]
    assert "2 of 4 shards" in caplog.text
    for place in (entry_folder(tmp_path / "a"), entry_folder(tmp_path / "a") / "shards"):
        assert not (place / ".meta.json.0123abcd").exists()
        (place / ".meta.json.4567cdef").rmdir()
        (place / ".nfs0123").unlink()
    assert content(tmp_path / "a") == content(tmp_path / "undisturbed")


@pytest.mark.parametrize(
    ("file", "damage", "again"),
    [
        ("features.npy", "flip", [6]),
        ("features.npy", "cut", [6, 12, 18]),
        ("features.npy", "remove", [0, 6, 12, 18]),
        ("features.npy", "header", []),
        ("digests.npy", "flip", [6]),
        ("digests.npy", "remove", [0, 6, 12, 18]),
        ("shards/00001.json", "remove", [6]),
        ("shards", "remove", [0, 6, 12, 18]),
        ("layout.json", "remove", []),
        ("meta.json", "flip", []),
        ("meta.json", "cut", []),
        ("meta.json", "remove", []),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_damaged_shards_are_named_and_made_again_they_alone(
    tmp_path: Path, file: str, damage: str, again: list[int], finished: bool, caplog: pytest.LogCaptureFixture
) -> None:
    x, _ = fill(tmp_path)
    before, folder = content(tmp_path), entry_folder(tmp_path)
    path = folder / file
    if damage == "remove":
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    else:
        # In the second row of the second shard, or in the header.
        place = (
            {"features.npy": 4096 + 7 * 24, "digests.npy": 4096 + 7 * 8}.get(file, 100) if damage != "header" else 20
        )
        written = bytearray(path.read_bytes())
        written[place] ^= 1
        path.write_bytes(written[:place] if damage == "cut" else written)
    if not finished:
        (folder / "meta.json").unlink(missing_ok=True)
    elif file.startswith("shards"):
        again = []  # the manifest has their notes
    filler = Counted()
    with caplog.at_level(logging.WARNING):
        fill(tmp_path, filler)
    assert filler.starts == again
    if again == [6] and damage == "flip":
        assert ("shards 1 of 4" if finished else "shard 1, rows 6 to 11") in caplog.text
    if finished and damage == "remove" and file != "features.npy":
        before = {name: written for name, written in before.items() if name in content(tmp_path)}
    assert content(tmp_path).keys() == before.keys()
    assert all(found == before[name] for name, found in content(tmp_path).items())
    assert np.array_equal(x, X), "a reader's map has changed"


def test_too_little_space_is_seen_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(UsageError, match=rf"{tmp_path}.*bytes are needed and 1,000 are free.*LSHBENCH_CACHE"):
        fill(tmp_path)


def test_a_disk_that_fills_up_is_wrong_use_not_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ArrayFile, "write", full)
    with pytest.raises(UsageError, match=f"no space left.*{tmp_path}"):
        fill(tmp_path)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UsageError, match=f"{tmp_path}.*can't be written"):
        fill(tmp_path)


WORKER = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    import numpy as np
    from lshbench.features.filling import Made
    from lshbench.features.store import FeatureStore

    cache, pause, log, others = Path(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])

    def note(start):
        with log.open("a") as file:
            file.write(f"{start}\\n")

    def fill(entry):
        def make(shards):
            for shard in shards:
                note(shard.start)
                while len(log.read_text().split()) <= others:  # until each has one in hand
                    time.sleep(0.01)
                for row in shard:
                    entry.write(row, np.full((1, 6), row, np.float32))
                    time.sleep(pause)
                yield Made(shard, np.arange(shard.start, shard.stop, dtype=np.uint64))

        entry.create(6)
        entry.fill(make)

    entry, made = FeatureStore(cache).get_or_fill({"key": 1}, 200, fill, 10)
    print(made, float(entry.x.sum()), flush=True)
""")


def worker(cache: Path, pause: float, log: Path, others: int = 0) -> subprocess.Popen:
    arguments = map(str, (cache, pause, log, others))
    return subprocess.Popen([sys.executable, "-c", WORKER, *arguments], stdout=subprocess.PIPE, text=True)


def test_workers_share_the_shards_and_one_that_is_killed_loses_those_in_hand(tmp_path: Path) -> None:
    log = tmp_path / "log"
    alone = worker(tmp_path / "alone", 0, tmp_path / "log-alone")
    assert alone.communicate(timeout=60)[0].split() == ["200", "119400.0"]
    workers = [worker(tmp_path / "shared", 0.004, log, others=2) for _ in range(3)]
    while workers[0].poll() is None and (not log.exists() or len(log.read_text().split()) < 8):
        time.sleep(0.01)
    workers[0].send_signal(signal.SIGKILL)
    outputs = [each.communicate(timeout=60)[0].split() for each in workers]
    done = [int(output[0]) for output in outputs[1:]]
    assert [output[1] for output in outputs[1:]] == ["119400.0"] * 2
    assert all(made > 0 for made in done), "one worker did everything"
    starts = sorted(map(int, log.read_text().split()))
    assert set(starts) == set(range(0, 200, 10))
    assert len(starts) <= 21, "more than the shard in hand was made twice"
    assert content(tmp_path / "shared") == content(tmp_path / "alone")


@pytest.mark.slow
def test_a_worker_killed_at_random_moments_goes_on_each_time(tmp_path: Path) -> None:
    log, kills, generator = tmp_path / "log", 0, random.Random(0)
    while True:
        begun = worker(tmp_path / "cache", 0.002, log)
        before = len(log.read_text().split()) if log.exists() else 0
        while begun.poll() is None and kills < 4:
            time.sleep(0.002)
            if log.exists() and len(log.read_text().split()) > before:
                time.sleep(generator.random() * 0.06)
                begun.kill()
                begun.wait()
        kills += 1
        if begun.wait() == 0:
            break
    assert len(log.read_text().split()) <= 20 + kills, "more than the shard in hand was made twice"
    worker(tmp_path / "alone", 0, tmp_path / "log-alone").communicate(timeout=60)
    assert content(tmp_path / "cache") == content(tmp_path / "alone")


def test_what_nobody_goes_on_with_is_deleted_in_the_end(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="half way"):
        fill(tmp_path, Counted(stop_before=12))
    folder = entry_folder(tmp_path)
    other = {**KEY, "rows": "some"}
    FeatureStore(tmp_path).get_or_fill(other, 20, Counted(), SHARD)
    assert folder.is_dir()
    for path in (folder, folder / "shards"):
        os.utime(path, (0, 0))
    FeatureStore(tmp_path).get_or_fill({**KEY, "rows": "few"}, 20, Counted(), SHARD)
    assert not folder.exists()
    assert FeatureStore(tmp_path).find(other) is not None


def test_an_entry_is_gone_on_with_however_old_it_is(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="half way"):
        fill(tmp_path, Counted(stop_before=12))
    folder = entry_folder(tmp_path)
    for path in (folder, folder / "shards"):
        os.utime(path, (0, 0))
    later = Counted()
    x, made = fill(tmp_path, later)
    assert np.array_equal(x, X)
    assert (later.starts, made) == ([12, 18], 8)


def test_checking_a_large_entry_is_fast(tmp_path: Path) -> None:
    large = np.ones((20_000, 512), np.float32)

    def fill_large(entry: Filling) -> None:
        def make(shards: Iterator[range]) -> Iterator[Made]:
            for shard in shards:
                entry.write(shard.start, large[shard.start : shard.stop])
                yield Made(shard, np.zeros(len(shard), np.uint64))

        entry.create(512)
        entry.fill(make)

    FeatureStore(tmp_path).get_or_fill(KEY, len(large), fill_large)
    began = time.process_time()
    assert FeatureStore(tmp_path).find(KEY) is not None
    assert time.process_time() - began < 2
