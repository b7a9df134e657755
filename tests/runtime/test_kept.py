"""What is kept in the cache is whole or not there, and nothing is left beside it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np

from lshbench.runtime.kept import Arrays, kept
from tests.command import run_code

KILLED = """
import os, signal
from pathlib import Path
import numpy as np
from lshbench.runtime.kept import kept
os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)
kept(Path("cache/a.npz"), "a", lambda: {"x": np.arange(3)})
"""


def test_what_a_killed_process_was_writing_is_cleared_away_by_the_next_one(tmp_path: Path) -> None:
    def compute() -> Arrays:
        return {"x": np.arange(3)}

    folder = tmp_path / "cache"
    assert run_code(KILLED, tmp_path, dict(os.environ)).returncode == -signal.SIGKILL
    assert len(list(folder.glob(".a.npz.*.partial"))) == 1
    kept(folder / "b.npz", "b", compute)
    assert len(list(folder.glob(".a.npz.*.partial"))) == 1, "of another entry, which may be under way"
    obstacle = folder / ".a.npz.0123abcd.partial"
    obstacle.mkdir()  # can't be removed, as a file of another user
    assert kept(folder / "a.npz", "a", compute)["x"].tolist() == [0, 1, 2]
    assert list(folder.glob(".*")) == [obstacle]
    assert (folder / "a.npz").exists()
