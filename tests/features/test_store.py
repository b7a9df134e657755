"""The store gives back what was put in, whatever happens to its processes, its files or its disk."""

from __future__ import annotations

import errno
import logging
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from lshbench.errors import UsageError
from lshbench.features.store import ArrayFile, EntryWriter, FeatureStore

KEY = {"data": "sha256:1", "rows": "all", "backbone": {"name": "a", "size": 32}}
X = np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32)
DIGESTS = np.arange(20, dtype=np.uint64)


def build(writer: EntryWriter) -> None:
    writer.create(*X.shape).write(0, X)
    writer.write_digests(DIGESTS)


def leftovers(cache: Path) -> list[str]:
    return [path.name for path in (cache / "features").iterdir() if ".building-" in path.name]


def test_what_was_built_is_found_again_and_not_built_again(tmp_path: Path) -> None:
    _, built = FeatureStore(tmp_path).get_or_build(KEY, build)
    assert built
    # The order of a key's parts has no meaning.
    entry, built = FeatureStore(tmp_path).get_or_build(dict(reversed(KEY.items())), pytest.fail)
    assert not built
    assert np.array_equal(entry.x, X)
    assert np.array_equal(entry.digests, DIGESTS)
    assert isinstance(entry.x, np.memmap)
    assert not entry.x.flags.writeable
    assert leftovers(tmp_path) == []


def test_another_key_has_another_entry(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    store.get_or_build(KEY, build)
    assert store.find({**KEY, "rows": "some"}) is None


def test_blocks_may_be_written_in_any_order(tmp_path: Path) -> None:
    file = ArrayFile(tmp_path / "x.npy", *X.shape)
    for start in (12, 0, 5):
        file.write(start, X[start : {0: 5, 5: 12, 12: 20}[start]])
    file.close()
    assert np.array_equal(np.load(tmp_path / "x.npy", allow_pickle=False), X)


@pytest.mark.parametrize("file", ["features.npy", "digests.npy", "meta.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_entry_is_noticed_and_built_again(
    tmp_path: Path, file: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = FeatureStore(tmp_path)
    entry, _ = store.get_or_build(KEY, build)
    path = entry.folder / file
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else content)
    with caplog.at_level(logging.WARNING):
        again, built = store.get_or_build(KEY, build)
    assert built
    assert np.array_equal(again.x, X)
    assert sum("damaged" in record.message for record in caplog.records) == 1
    assert leftovers(tmp_path) == []


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail(writer: EntryWriter) -> None:
        writer.create(*X.shape).write(0, X)
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        FeatureStore(tmp_path).get_or_build(KEY, fail)
    assert leftovers(tmp_path) == []
    assert FeatureStore(tmp_path).find(KEY) is None


def test_too_little_space_is_seen_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(UsageError, match=rf"{tmp_path}.*bytes are needed and 1,000 are free.*LSHBENCH_CACHE"):
        FeatureStore(tmp_path).get_or_build(KEY, build)
    assert leftovers(tmp_path) == []


def test_a_disk_that_fills_up_is_wrong_use_not_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ArrayFile, "write", full)
    with pytest.raises(UsageError, match=f"no space left.*{tmp_path}"):
        FeatureStore(tmp_path).get_or_build(KEY, build)
    assert leftovers(tmp_path) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UsageError, match=f"{tmp_path}.*can't be written"):
        FeatureStore(tmp_path).get_or_build(KEY, build)


BUILDER = textwrap.dedent("""
    import logging, sys, time
    from pathlib import Path
    import numpy as np
    from lshbench.features.store import FeatureStore

    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    cache, pause = Path(sys.argv[1]), float(sys.argv[2])

    def build(writer):
        file = writer.create(20, 6)
        file.write(0, np.ones((10, 6), np.float32))
        print("building", flush=True)
        time.sleep(pause)
        file.write(10, np.ones((10, 6), np.float32))
        writer.write_digests(np.arange(20, dtype=np.uint64))

    entry, built = FeatureStore(cache).get_or_build({"key": 1}, build)
    print("built" if built else "found", float(entry.x.sum()), flush=True)
""")


def start(cache: Path, pause: float) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", BUILDER, str(cache), str(pause)], stdout=subprocess.PIPE, text=True)


def test_of_several_processes_one_builds_and_the_others_wait(tmp_path: Path) -> None:
    processes = [start(tmp_path, 1.0) for _ in range(3)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert sum(output.count("building") for output in outputs) == 1
    assert sum("built 120.0" in output for output in outputs) == 1
    assert sum("found 120.0" in output for output in outputs) == 2
    assert leftovers(tmp_path) == []


def test_a_waiting_process_says_so_and_takes_over_from_a_killed_one(tmp_path: Path) -> None:
    first = start(tmp_path, 600)
    assert first.stdout is not None
    assert first.stdout.readline().strip() == "building"
    second = start(tmp_path, 0)
    assert second.stdout is not None
    assert "waiting" in second.stdout.readline()
    assert FeatureStore(tmp_path).find({"key": 1}) is None, "half an entry was seen"
    first.send_signal(signal.SIGKILL)
    first.wait()
    output, _ = second.communicate(timeout=60)
    assert "built 120.0" in output
    assert leftovers(tmp_path) == []


def test_what_a_killed_builder_left_goes_when_something_else_is_built(tmp_path: Path) -> None:
    killed = start(tmp_path, 600)
    assert killed.stdout is not None
    killed.stdout.readline()
    killed.kill()
    killed.wait()
    assert len(leftovers(tmp_path)) == 1
    FeatureStore(tmp_path).get_or_build(KEY, build)
    assert leftovers(tmp_path) == []


def test_what_a_living_builder_works_on_stays(tmp_path: Path) -> None:
    living = start(tmp_path, 2)
    assert living.stdout is not None
    living.stdout.readline()
    FeatureStore(tmp_path).get_or_build(KEY, build)
    assert len(leftovers(tmp_path)) == 1
    assert "built 120.0" in living.communicate(timeout=60)[0]


def test_a_reader_keeps_its_features_while_a_damaged_entry_is_replaced(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    entry, _ = store.get_or_build(KEY, build)
    (entry.folder / "digests.npy").write_bytes(b"damaged")
    store.get_or_build(KEY, build)
    assert np.array_equal(entry.x, X)


def test_checking_a_large_entry_is_fast(tmp_path: Path) -> None:
    large = np.ones((20_000, 512), np.float32)

    def build_large(writer: EntryWriter) -> None:
        writer.create(*large.shape).write(0, large)
        writer.write_digests(np.zeros(len(large), np.uint64))

    FeatureStore(tmp_path).get_or_build(KEY, build_large)
    began = time.perf_counter()
    assert FeatureStore(tmp_path).find(KEY) is not None
    assert time.perf_counter() - began < 2
