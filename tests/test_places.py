"""What is not needed does not stop a run: places that can't be written, full disks, a damaged cache, closed pipes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

import lshbench as package
from lshbench.kernels.compilation import source_digest
from lshbench.run_folder import RunFolder
from lshbench.runtime.checkpoints import UNUSED_DAYS, checkpoint_file
from tests.conftest import Command
from tests.places import forbid_writing, may_mount, mount_read_only, mount_small, obey_permissions

SMALL = (
    "dataset=digits", "dataset.max_gallery=50", "dataset.max_queries=10", "backbone=pixels", "backbone.image_size=8",
    "bits=16", "evaluation.plots=false", "evaluation.definitions=false", "reference.time=false",
    "reference.classifier=false",
)  # fmt: skip
PROJECTION = (*SMALL, "method=random_projection")
TRAINED = (*SMALL, "method=csq", "method.training.epochs=2")

mounts = pytest.mark.skipif(not may_mount(), reason="this process may not mount anything")


def read_only(way: str, *folders: Path) -> Callable[[], object]:
    """Return what makes folders read-only for a command, by a mount or by permissions."""
    if way == "mount":
        return partial(mount_read_only, folders)
    for folder in folders:
        forbid_writing(folder)
    return obey_permissions


def figures(folder: Path) -> list[dict]:
    return [json.loads(path.read_text(encoding="utf-8"))["metrics"] for path in sorted(folder.rglob("metrics.json"))]


def copy_kernels(cache: Path) -> None:
    """Copy the machine code that the tests before have compiled into a cache."""
    shutil.copytree(Path(os.environ["NUMBA_CACHE_DIR"]) / source_digest(), cache / "kernels" / source_digest())


@pytest.mark.slow
@pytest.mark.parametrize("way", [pytest.param("mount", marks=mounts), "permissions"])
def test_a_complete_cache_and_a_run_need_not_be_written(way: str, tmp_path: Path, lshbench: Command) -> None:
    cache = tmp_path / "cache"
    arguments = ("run", *TRAINED, "index=buckets")
    own = {"LSHBENCH_CACHE": str(cache)}
    lshbench(*arguments, "output=first", env=own)
    (run,) = (path.parent for path in tmp_path.glob("first/**/metrics.json"))
    Image.new("RGB", (8, 8)).save(tmp_path / "q.png")
    asked = ("search", str(run), "q.png")
    answer = lshbench(*asked, env=own).stdout
    copy_kernels(cache)
    (tmp_path / "second").mkdir()
    unwritable = read_only(way, cache, run)
    environment = {"NUMBA_CACHE_DIR": None, **own}
    done = lshbench(*arguments, "output=second", env=environment, prepare=unwritable)
    first, second = figures(tmp_path)
    assert first == second
    assert "compiled in every process" not in done.stderr
    assert "the reference" not in done.stderr
    assert "training goes on without a state to resume from" in done.stderr
    found = lshbench(*asked, env=environment, prepare=unwritable)
    assert found.stdout.splitlines()[:14] == answer.splitlines()[:14]
    assert "Traceback" not in found.stderr


@pytest.mark.slow
@mounts
def test_an_install_and_a_home_need_not_be_written(tmp_path: Path, lshbench: Command) -> None:
    home, cache = tmp_path / "home", tmp_path / "cache"
    home.mkdir()
    arguments = ("run", *(argument for argument in TRAINED if "plots" not in argument))
    lshbench(*arguments, f"cache={cache}", f"output={tmp_path}/first")
    copy_kernels(cache)
    environment = dict.fromkeys(("NUMBA_CACHE_DIR", "LSHBENCH_CACHE", "XDG_CACHE_HOME", "MPLCONFIGDIR"))
    done = lshbench(
        *arguments, f"cache={cache}", f"output={tmp_path}/second", env={**environment, "HOME": str(home)},
        prepare=partial(mount_read_only, [Path(package.__file__).parents[1], home]),
    )  # fmt: skip
    first, second = figures(tmp_path)
    assert first == second
    assert "compiled in every process" not in done.stderr


@pytest.mark.slow
@mounts
def test_a_full_disk_at_a_checkpoint_costs_the_checkpoint_only(tmp_path: Path, lshbench: Command) -> None:
    cache = tmp_path / "cache"
    (cache / "checkpoints").mkdir(parents=True)
    full = partial(mount_small, {cache / "checkpoints": 16384})
    done = lshbench("run", *TRAINED, f"cache={cache}", "output=out", prepare=full)
    assert done.stderr.count("training goes on, but can't be resumed") == 1
    lshbench("run", *TRAINED, f"cache={cache}", "output=out")
    first, second = figures(tmp_path / "out")
    assert first == second


def test_a_damaged_reference_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from lshbench.evaluation.reference import cosine_reference
    from lshbench.runtime.progress import silent
    from lshbench.types import Features, Relevance

    x = np.random.default_rng(0).standard_normal((30, 8)).astype(np.float32)
    sides = [Features(part, np.arange(len(part)) % 3, np.arange(len(part))) for part in (x[:20], x[20:])]
    arguments = (*sides, Relevance(sides[1].y, sides[0].y), tmp_path, silent)
    right = cosine_reference(*arguments)
    (entry,) = (tmp_path / "references").glob("*.npz")
    whole = entry.read_bytes()
    damages = {
        "empty": b"", "cut": whole[: len(whole) // 2], "text": b"x" * 100, "zeros": bytes(len(whole)),
        "a bit": whole[:700] + bytes([whole[700] ^ 1]) + whole[701:],
    }  # fmt: skip
    for name, damage in damages.items():
        entry.write_bytes(damage)
        caplog.clear()
        again = cosine_reference(*arguments)
        assert again.metrics == right.metrics, name
        assert np.array_equal(again.neighbors, right.neighbors), name
        assert "is computed again" in caplog.text, name
        assert entry.read_bytes()[:2] == b"PK", name


def test_checkpoint_folders_go_with_the_run_and_old_ones_with_any(tmp_path: Path) -> None:
    old, kept = tmp_path / "old", tmp_path / "kept"
    for folder in (old, kept):
        folder.mkdir()
        (folder / "training.safetensors").write_bytes(b"x")
    then = time.time() - 86400 * (UNUSED_DAYS + 1)
    os.utime(old, (then, then))
    with checkpoint_file(tmp_path / "own") as file:
        assert file is not None
        file.write_bytes(b"x")
        with checkpoint_file(tmp_path / "own") as second:
            assert second is None
        assert file.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept"]
    with suppress(KeyboardInterrupt), checkpoint_file(tmp_path / "own") as file:
        assert file is not None
        file.write_bytes(b"x")
        raise KeyboardInterrupt
    assert (tmp_path / "own" / "training.safetensors").exists()


def read_by_nobody(*arguments: str, cwd: Path, stream: str = "stdout") -> subprocess.CompletedProcess:
    """Run a command whose output has no reader from the start."""
    end, closed = os.pipe()
    os.close(end)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: closed}
    try:
        return subprocess.run([sys.executable, "-m", "lshbench", *arguments], cwd=cwd, text=True, **streams)
    finally:
        os.close(closed)


@pytest.mark.parametrize("command", ["--help", "ls"])
def test_a_closed_pipe_ends_no_command_with_an_error(command: str, tmp_path: Path) -> None:
    done = read_by_nobody(command, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_closed_pipe_stops_no_work(tmp_path: Path, lshbench: Command) -> None:
    assert read_by_nobody("run", "--cfg", "job", cwd=tmp_path).returncode == 0
    for stream in ("stdout", "stderr"):
        done = read_by_nobody("run", *PROJECTION, f"output={stream}", cwd=tmp_path, stream=stream)
        assert done.returncode == 0, done.stderr
        assert "Broken pipe" not in (done.stderr or "")
        assert len(figures(tmp_path / stream)) == 1
    (run,) = (path.parent for path in tmp_path.glob("stdout/**/metrics.json"))
    Image.new("RGB", (8, 8)).save(tmp_path / "q.png")
    for arguments in (("report", "stdout"), ("search", str(run), "q.png"), ("run", "nothing=1"), ("run", "--help")):
        done = read_by_nobody(*arguments, cwd=tmp_path)
        assert done.returncode == (2 if "nothing=1" in arguments else 0), done.stderr
        assert "Traceback" not in done.stderr


def unfinished(folder: Path, age_days: float) -> Path:
    """Make what a run leaves that died while it wrote its folder."""
    (folder / ".hydra").mkdir(parents=True)
    for name in (".hydra/config.yaml", ".run.lock", "run.log", "config.yaml", "codes/gallery.npy"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    then = time.time() - 86400 * age_days
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (then, then))
    return folder


def test_unfinished_runs_go_after_a_day(tmp_path: Path) -> None:
    old, new = unfinished(tmp_path / "old", 1.1), unfinished(tmp_path / "new", 0.9)
    running, foreign = unfinished(tmp_path / "running", 3), unfinished(tmp_path / "foreign", 3)
    finished, other = unfinished(tmp_path / "finished", 3), tmp_path / "other"
    (foreign / "notes.txt").touch()
    (finished / "metrics.json").touch()
    other.mkdir()
    for folder in (foreign, finished, other):
        os.utime(folder, (0, 0))
    os.utime(foreign / "notes.txt", (0, 0))
    with FileLock(running / ".run.lock"):
        os.utime(running / ".run.lock", (0, 0))
        RunFolder.discard_unfinished(tmp_path)
    assert not old.exists()
    assert all(path.exists() for path in (new, foreign / "run.log", finished / "run.log", other))
    assert (running / "codes" / "gallery.npy").exists()


def test_a_refusal_leaves_no_folder(tmp_path: Path, lshbench: Command) -> None:
    from tests.test_inputs import PIXELS, noise

    for place, name in enumerate("ab"):
        noise(tmp_path / "data" / name, place, 5)
    (tmp_path / "data" / "a" / "0.png").write_bytes(b"no image")
    done = lshbench("run", "dataset=folder", "dataset.path=data", *PIXELS, "output=out", check=False)
    assert done.returncode == 2, done.stderr
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
