"""What is kept in the cache is whole or not there, and nothing is left beside it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import xxhash

from lshbench.runtime import scratch
from lshbench.runtime.kept import Arrays, content_digest, kept
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


X = np.arange(350.0, dtype=np.float32).reshape(50, 7)
KINDS = {
    "plain": X,
    "columns": np.asfortranarray(X),
    "every third": X[::-3, ::2],
    "three dimensions": X.reshape(5, 10, 7).transpose(2, 0, 1),
    "big-endian": X.astype(">f4"),
    "numbers of one row": X[0],
    "a number": np.array(3.5),
    "no row": X[:0],
    "rows of nothing": X[:, :0],
    "fields": np.zeros(9, [("a", "i2"), ("b", ">f8", (2,))]),
    "texts": np.array(["a", "bcd"]),
    "repeated": np.broadcast_to(X[0], (40, 7)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_digest_taken_in_blocks_is_that_of_all_bytes(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "BLOCK_BYTES", 64)
    array = KINDS[kind]
    whole = xxhash.xxh3_128(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    assert content_digest(array) == whole.hexdigest(), "what is kept in caches is found by it"
