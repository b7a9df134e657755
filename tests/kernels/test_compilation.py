"""Machine code of kernels: kept outside the package, found again, and never older than any kernel's source."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lshbench.kernels import compilation

PACKAGE = Path(compilation.__file__).parents[1]

SEARCH = """
import numpy as np
from lshbench.kernels import hamming
from lshbench.ranking.hamming import hamming_neighbors
from lshbench.types import Codes
packed = np.array([[0], [1], [3], [7]], np.uint8)
print(*hamming_neighbors(Codes(packed[:1], 8), Codes(packed, 8), 4).distances[0].astype(int), end=" compiled ")
print(sum(hamming.nearest_serial.stats.cache_misses.values()))
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with a copy of the package that no machine code lies in."""
    shutil.copytree(PACKAGE, tmp_path / "tree" / "lshbench", ignore=shutil.ignore_patterns("__pycache__", "conf"))
    return tmp_path / "tree"


def search(tree: Path, cache: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(tree), "LSHBENCH_CACHE": str(cache), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("NUMBA_CACHE_DIR", None)
    done = subprocess.run([sys.executable, "-c", SEARCH], env=environment, cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_an_edit_of_a_function_that_another_module_calls_is_seen(tree: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert search(tree, cache) == "0 1 2 3 compiled 1"
    assert search(tree, cache) == "0 1 2 3 compiled 0"
    assert not [path for path in tree.rglob("*") if path.suffix in (".nbi", ".nbc")]

    words = tree / "lshbench" / "kernels" / "words.py"
    source = words.read_text()
    edited = source.replace("return np.int64(total)", "return np.int64(2 * total)")
    assert edited != source
    words.write_text(edited)
    assert search(tree, cache) == "0 2 4 6 compiled 1"
    words.write_text(source)
    assert search(tree, cache) == "0 1 2 3 compiled 0"


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_costs_compiling_only(tree: Path, tmp_path: Path) -> None:
    no_folder = tmp_path / "cache"
    no_folder.write_text("a file")
    assert search(tree, no_folder) == "0 1 2 3 compiled 1"
    assert not [path for path in tree.rglob("*") if path.suffix in (".nbi", ".nbc")]


def test_machine_code_that_nothing_has_used_for_long_is_deleted(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("old", "new", "foreign")]
    for folder in folders:
        folder.mkdir()
    for folder in folders[:2]:
        (folder / "lock").touch()
    long_ago = time.time() - 86400 * (compilation.UNUSED_DAYS + 1)
    for folder in (folders[0], folders[2]):
        os.utime(folder, (long_ago, long_ago))
    compilation._delete_unused(tmp_path)
    assert [folder.exists() for folder in folders] == [False, True, True]
