"""Images dropped on a page that was killed."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import pytest
from filelock import FileLock

from lshbench.search.page import KILLED_SECONDS, LOCK, PREFIX, remove_leftovers


def test_what_a_killed_page_left_goes_when_another_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    folders = {name: tmp_path / "temporary" / f"{PREFIX}{name}" for name in ("killed", "running", "starting", "bare")}
    elsewhere = tmp_path / "elsewhere"
    for folder in (*folders.values(), elsewhere):
        folder.mkdir(parents=True)
        (folder / "dropped.png").write_bytes(b"x")
        if folder.name != f"{PREFIX}bare":
            (folder / LOCK).touch()
    for folder in (folders["killed"], folders["running"], elsewhere):
        os.utime(folder / LOCK, (0, time.time() - KILLED_SECONDS - 1))
    (tmp_path / "temporary" / f"{PREFIX}link").symlink_to(elsewhere)
    with FileLock(folders["running"] / LOCK):
        os.utime(folders["running"] / LOCK, (0, time.time() - KILLED_SECONDS - 1))
        remove_leftovers()
    assert not folders["killed"].exists()
    assert all((folders[name] / "dropped.png").exists() for name in ("running", "starting", "bare"))
    assert (elsewhere / "dropped.png").exists()
