"""Fixtures that several test modules share."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lshbench.runtime.cache import cache_dir
from lshbench.runtime.threads import let_waiting_threads_sleep
from tests.command import run_command

# Tests have caches of their own, in which all kernels would have to be compiled again.
os.environ.setdefault("NUMBA_CACHE_DIR", str(cache_dir() / "kernels"))
# Tests import torch and faiss before a command of theirs could do this.  Their processes share the cores: none spins.
os.environ.setdefault("GOMP_SPINCOUNT", "0")
let_waiting_threads_sleep()

Command = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of the test session share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def shared_cache(shared_folder: Path) -> Path:
    """One cache for all runs of the test session, as a user has one."""
    return shared_folder / "shared-cache"


@pytest.fixture
def lshbench(tmp_path: Path, shared_cache: Path) -> Command:
    """Run the real command in an empty folder; returns its exit code and output."""

    def run(*arguments: str, check: bool = True, **keywords: object) -> subprocess.CompletedProcess:
        environment = {**os.environ, "LSHBENCH_CACHE": str(shared_cache), **keywords.pop("env", {})}
        environment = {key: value for key, value in environment.items() if value is not None}
        done = run_command(arguments, keywords.pop("cwd", tmp_path), environment, keywords.pop("prepare", int))
        assert not keywords, keywords
        if check and done.returncode != 0:
            pytest.fail(f"{arguments} gave {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return done

    return run
