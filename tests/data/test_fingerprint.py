"""Content is named by its bytes, and remembered only as long as that is safe."""

from __future__ import annotations

import hashlib
import os
import sqlite3
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


def test_a_digest_is_the_sha256_of_the_content(tmp_path: Path) -> None:
    files = [written(tmp_path / name, name.encode()) for name in ("a", "b", "a2")]
    expected = [hashlib.sha256(path.name.encode()).hexdigest() for path in files]
    assert file_digests(files, cache_dir()) == expected
    assert file_digests(files[::-1], cache_dir()) == expected[::-1]


def test_known_content_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path / "a", b"one")
    first = file_digests([file], cache_dir())
    monkeypatch.setattr(fingerprint, "_digest", lambda path: pytest.fail(f"{path} was read again"))
    link = tmp_path / "link"
    link.symlink_to(file)
    assert file_digests([file, link], cache_dir()) == first * 2


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


@pytest.mark.parametrize("damage", [b"not a database at all, whatever it says", b""])
def test_a_damaged_database_is_built_again(tmp_path: Path, damage: bytes) -> None:
    file = written(tmp_path / "a", b"one")
    first = file_digests([file], cache_dir())
    (cache_dir() / DATABASE).write_bytes(damage)
    assert file_digests([file], cache_dir()) == first
    with sqlite3.connect(cache_dir() / DATABASE) as connection:
        assert connection.execute("SELECT count(*) FROM files").fetchone() == (1,)
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
