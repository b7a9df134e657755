"""Content is named by its bytes, and remembered only as long as that is safe."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lshbench.data import fingerprint
from lshbench.data.fingerprint import DATABASE, combine, file_digests
from lshbench.errors import UsageError
from lshbench.runtime.cache import cache_dir

OLD = 1_600_000_000


def written(path: Path, content: bytes, seconds: int = OLD) -> Path:
    path.write_bytes(content)
    os.utime(path, (seconds, seconds))
    return path


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take files for old that the tests have just written: the time of status can't be set."""
    monkeypatch.setattr(fingerprint, "SETTLED_NS", -1)


def test_a_digest_is_the_sha256_of_the_content(tmp_path: Path) -> None:
    files = [written(tmp_path / name, name.encode()) for name in ("a", "b", "a2")]
    expected = [hashlib.sha256(path.name.encode()).hexdigest() for path in files]
    assert file_digests(files, cache_dir()) == expected
    assert file_digests(files[::-1], cache_dir()) == expected[::-1]


@pytest.mark.parametrize("change", [{}, {"LARGE": 0}, {"WAITING": 0}], ids=["at hand", "large", "waited for"])
def test_files_are_read_alike_by_one_thread_and_by_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, int]
) -> None:
    for name, value in {"BATCH": 4, **change}.items():
        monkeypatch.setattr(fingerprint, name, value)
    files = [written(tmp_path / str(number), b"%d" % number) for number in range(11)]
    expected = [hashlib.sha256(path.name.encode()).hexdigest() for path in files]
    assert file_digests(files, tmp_path) == expected


@pytest.mark.usefixtures("settled")
def test_hashing_that_takes_long_is_announced_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fingerprint, "LONG_FILES", 2)
    caplog.set_level("INFO")
    files = [written(tmp_path / name, b"content") for name in ("a", "b")]
    for _ in range(2):
        file_digests(files, cache_dir())
    assert [record.getMessage() for record in caplog.records] == [
        "hashing 2 files, 0.0 kB, once: later runs go by their times"
    ]


@pytest.mark.usefixtures("settled")
def test_known_content_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path / "a", b"one")
    first = file_digests([file], cache_dir())
    monkeypatch.setattr(fingerprint, "_digest", lambda path: pytest.fail(f"{path} was read again"))
    link = tmp_path / "link"
    link.symlink_to(file)
    assert file_digests([file, link], cache_dir()) == first * 2


@pytest.mark.usefixtures("settled")
def test_changed_content_is_read_again(tmp_path: Path) -> None:
    file = written(tmp_path / "a", b"one")
    first = file_digests([file], cache_dir())
    written(file, b"two", OLD + 1)
    assert file_digests([file], cache_dir()) != first


def test_a_file_just_written_is_not_remembered(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"one")
    stamp = file.stat().st_mtime_ns
    first = file_digests([file], cache_dir())
    file.write_bytes(b"two")
    os.utime(file, ns=(stamp, stamp))
    assert file_digests([file], cache_dir()) != first


def replaced(folder: Path, a: Path, b: Path) -> None:
    (folder / "new").write_bytes(b"two")
    os.utime(folder / "new", (OLD, OLD))
    (folder / "new").replace(a)


def rewritten(folder: Path, a: Path, b: Path) -> None:
    a.write_bytes(b"two")
    os.utime(a, (OLD, OLD))


def exchanged(folder: Path, a: Path, b: Path) -> None:
    for source, target in ((a, folder / "c"), (b, a), (folder / "c", b)):
        source.rename(target)


def linked_elsewhere(folder: Path, a: Path, b: Path) -> None:
    a.unlink()
    a.symlink_to(b)


def restored(folder: Path, a: Path, b: Path) -> None:
    shutil.copy2(b, a)


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("change", [replaced, rewritten, exchanged, linked_elsewhere, restored])
def test_no_change_under_an_old_time_stamp_goes_unnoticed(change: Callable, tmp_path: Path) -> None:
    a, b = written(tmp_path / "a", b"one"), written(tmp_path / "b", b"six")
    assert len({*file_digests([a, b], cache_dir())}) == 2
    change(tmp_path, a, b)
    assert a.stat().st_size == 3
    assert a.stat().st_mtime == OLD
    expected = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (a, b)]
    assert file_digests([a, b], cache_dir()) == expected
    assert file_digests([a, b], cache_dir()) == expected


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, real = written(tmp_path / "a", bytes(fingerprint.SMALL + 1)), hashlib.file_digest

    def slow(*arguments: object) -> object:
        with file.open("ab") as more:
            more.write(b"more")
        return real(*arguments)

    monkeypatch.setattr(fingerprint.hashlib, "file_digest", slow)
    with pytest.raises(UsageError, match="changes while it is read"):
        file_digests([file], cache_dir())


def test_a_name_in_bytes_that_are_no_text_is_read(tmp_path: Path) -> None:
    file = written(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")), b"one")
    assert file_digests([file, file], cache_dir()) == [hashlib.sha256(b"one").hexdigest()] * 2


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("damage", [b"not a database at all, whatever it says", b""])
def test_a_damaged_database_is_built_again(tmp_path: Path, damage: bytes) -> None:
    file = written(tmp_path / "a", b"one")
    first = file_digests([file], cache_dir())
    (cache_dir() / DATABASE).write_bytes(damage)
    assert file_digests([file], cache_dir()) == first
    with sqlite3.connect(cache_dir() / DATABASE) as connection:
        assert connection.execute("SELECT count(*) FROM digests").fetchone() == (1,)
    connection.close()


def test_many_can_ask_at_once(tmp_path: Path) -> None:
    files = [written(tmp_path / str(i), str(i % 7).encode()) for i in range(600)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: file_digests(files, cache_dir()), range(4)))
    assert all(answer == answers[0] for answer in answers)
    assert len(set(answers[0])) == 7


def test_an_unusable_cache_folder_costs_time_only(tmp_path: Path) -> None:
    file = written(tmp_path / "a", b"one")
    (cache_dir() / DATABASE).mkdir()
    assert file_digests([file], cache_dir()) == [hashlib.sha256(b"one").hexdigest()]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        file_digests([tmp_path / "nowhere"], cache_dir())


def test_combining_keeps_the_order_and_the_bounds_of_parts() -> None:
    assert combine("a", "b") != combine("b", "a")
    assert combine(["a", "b"]) != combine("a", "b")
    assert combine("a", 1).startswith("sha256:")
