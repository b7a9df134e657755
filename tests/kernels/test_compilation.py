"""Machine code of kernels: kept outside the package, found again, and never older than any kernel's source."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numba
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

KERNELS = """
import sys
import numba
import numpy as np
from lshbench.kernels import compilation, threads
compilation.WRITABLE = compilation.WRITABLE and "read-only" not in sys.argv

@compilation.kernel
def plain(numbers):
    return numbers.sum()

@compilation.kernel(parallel=True)
def parallel(numbers):
    total = 0
    for i in numba.prange(len(numbers)):
        total += 2 * numbers[i]
    return total

@threads.threaded_kernel
def threaded(part, parts, numbers, sums):
    for i in threads.own_part(len(numbers), part, parts):
        sums[part] += 3 * numbers[i]

numba.set_num_threads(2)
numbers, sums = np.arange(10), np.zeros(2, np.int64)
threaded(numbers, sums)
print(plain(numbers), plain(numbers.astype(np.int32)), parallel(numbers), sums.sum(), end=" compiled ")
kernels = plain, parallel, threaded.compiled, threads.own_part
print(sum(sum(each.stats.cache_misses.values()) for each in kernels))
"""
RIGHT = "45 45 90 135 compiled "
ALL = 5  # two signatures of the plain kernel, and `own_part`


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A script that runs kernels of every kind, and a cache that has their machine code."""
    folder = tmp_path_factory.mktemp("compiled")
    (folder / "script.py").write_text(KERNELS)
    assert run_kernels(folder / "script.py", folder / "cache") == (f"{RIGHT}{ALL}", [])
    return folder / "script.py", folder / "cache"


def run_kernels(script: Path, cache: Path, *arguments: str) -> tuple[str, list[str]]:
    """Run the script; return what it printed, and the paths that it warned of."""
    return finished(start_kernels(script, cache, *arguments))


def start_kernels(script: Path, cache: Path, *arguments: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "LSHBENCH_CACHE": str(cache)}
    environment.pop("NUMBA_CACHE_DIR", None)
    command = [sys.executable, str(script), *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen) -> tuple[str, list[str]]:
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    warned = re.findall(r"^(\S+) is damaged \(.+\): its kernel is compiled again$", errors, re.MULTILINE)
    assert len(warned) == len(errors.splitlines()), errors
    return output.strip(), warned


def kernel_files(cache: Path, suffix: str) -> list[Path]:
    return sorted(cache.glob(f"kernels/*/*/*{suffix}"))


def change_middle(content: bytes) -> bytes:
    """Turn a bit in the middle, which is machine code in a large file: the pickle is whole."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[: len(content) * 2 // 3],
    "short": lambda content: content[:10],
    "random": lambda content: os.urandom(len(content)),
    "zeros": lambda content: bytes(len(content)),
    "one bit": change_middle,
    "numba's own": lambda content: pickle.dumps(numba.__version__) + pickle.dumps(("stamp", {})),
}


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


@pytest.mark.parametrize(
    ("damage", "suffix"),
    [
        pytest.param(name, suffix, marks=() if (name, suffix) == ("one bit", ".nbc") else pytest.mark.slow)
        for name in DAMAGES
        for suffix in (".nbi", ".nbc", ".nb[ic]")
    ],
)
def test_damaged_files_are_named_once_and_made_again(
    damage: str, suffix: str, compiled: tuple[Path, Path], tmp_path: Path
) -> None:
    script, cache = compiled[0], shutil.copytree(compiled[1], tmp_path / "cache")
    damaged = kernel_files(cache, suffix)
    before = {path: path.read_bytes() for path in kernel_files(cache, ".nb[ic]")}
    for path in damaged:
        path.write_bytes(DAMAGES[damage](before[path]))

    output, warned = run_kernels(script, cache)
    assert output == f"{RIGHT}{ALL}"
    # An index that is gone leads to no code, so the code is not even looked at.
    assert sorted(warned) == [str(path) for path in damaged if suffix != ".nb[ic]" or path.suffix == ".nbi"]
    assert list(before) == kernel_files(cache, "")  # nothing is left over
    assert run_kernels(script, cache) == (f"{RIGHT}0", [])


@pytest.mark.slow
def test_files_in_the_places_of_others_are_damaged(compiled: tuple[Path, Path], tmp_path: Path) -> None:
    script, cache = compiled[0], shutil.copytree(compiled[1], tmp_path / "cache")
    [first, second] = [path for path in kernel_files(cache, ".nbc") if path.name.startswith("script.plain")]
    [parallel] = [path for path in kernel_files(cache, ".nbc") if path.name.startswith("script.parallel")]
    shutil.copy(second, first)
    shutil.copy(parallel, second)
    output, warned = run_kernels(script, cache)
    assert (output, sorted(warned)) == (f"{RIGHT}2", [str(first), str(second)])
    assert run_kernels(script, cache) == (f"{RIGHT}0", [])

    first.unlink()
    first.mkdir()
    for _ in range(2):  # a folder stays
        assert run_kernels(script, cache) == (f"{RIGHT}1", [str(first)])


@pytest.mark.slow
def test_code_of_other_arguments_is_not_run(compiled: tuple[Path, Path], tmp_path: Path) -> None:
    script, cache = compiled[0], shutil.copytree(compiled[1], tmp_path / "cache")
    [first, second] = [path for path in kernel_files(cache, ".nbc") if path.name.startswith("script.plain")]
    compilation._write(first, compilation._read(second))
    assert run_kernels(script, cache) == (f"{RIGHT}1", [str(first)])
    assert run_kernels(script, cache) == (f"{RIGHT}0", [])


@pytest.mark.slow
def test_an_entry_that_other_libraries_cannot_take_is_made_again(compiled: tuple[Path, Path], tmp_path: Path) -> None:
    script, cache = compiled[0], shutil.copytree(compiled[1], tmp_path / "cache")
    [code] = [path for path in kernel_files(cache, ".nbc") if path.name.startswith("script.parallel")]
    key, _ = compilation._read(code)
    compilation._write(code, (key, ("what another numba wrote",)))
    [index] = [path for path in kernel_files(cache, ".nbi") if path.name.startswith("script.parallel")]
    assert run_kernels(script, cache) == (f"{RIGHT}1", [str(index)])
    assert run_kernels(script, cache) == (f"{RIGHT}0", [])


@pytest.mark.slow
def test_processes_that_meet_damage_at_once_all_go_on(compiled: tuple[Path, Path], tmp_path: Path) -> None:
    script, cache = compiled[0], shutil.copytree(compiled[1], tmp_path / "cache")
    damaged = kernel_files(cache, ".nbc")
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-1])
    results = [finished(process) for process in [start_kernels(script, cache) for _ in range(4)]]
    assert all(output.startswith(RIGHT) for output, _ in results)
    assert sorted(path for _, warned in results for path in warned) == [str(path) for path in damaged]
    assert run_kernels(script, cache) == (f"{RIGHT}0", [])


@pytest.mark.slow
def test_damage_in_a_cache_that_cannot_be_written_costs_compiling(compiled: tuple[Path, Path], tmp_path: Path) -> None:
    script, cache = compiled[0], shutil.copytree(compiled[1], tmp_path / "cache")
    damaged = kernel_files(cache, ".nbi")
    for path in damaged:
        path.write_bytes(b"")
    for _ in range(2):
        output, warned = run_kernels(script, cache, "read-only")
        assert (output, sorted(warned)) == (f"{RIGHT}{ALL}", [str(path) for path in damaged])


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
