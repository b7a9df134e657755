"""Inputs made at random: the right data or one message, in this process for some, by the command for others."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lshbench.data.arrays import ArraySource
from lshbench.data.base import Source
from lshbench.data.folder import FolderSource
from lshbench.errors import UsageError
from lshbench.runtime.cache import cache_dir
from lshbench.runtime.progress import silent

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def fuzz(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("fuzz_inputs")


@pytest.mark.parametrize("maker", ["damaged_file", "odd_arrays", "odd_header", "image_folder"])
def test_data_is_opened_right_or_refused(maker: str, fuzz: Any, tmp_path: Path) -> None:
    taken = 0
    for number in range(10):
        folder = tmp_path / str(number)
        folder.mkdir()
        case = getattr(fuzz, maker)(np.random.default_rng([9, number]), folder)
        sizes, message = opened(case, tmp_path / "cache")
        if message:
            assert case.figures is None, f"{case.name}: {message}"
        else:
            assert not case.refused, case.name
            assert case.figures is None or sizes == case.figures[:3], case.name
            taken += 1
    assert (taken > 0) == (maker != "odd_header")


def opened(case: Any, cache: Path) -> tuple[tuple[int, ...], str]:
    """Return the numbers of gallery items, queries and classes of a case's data, or why it is refused."""
    source: type[Source] = FolderSource if case.source == "folder" else ArraySource
    try:
        data = source(path=str(case.data)).open(cache_dir(str(cache)), silent)
        if data.kind == "features":
            data.query.read_features(np.arange(len(data.query)), silent)
    except UsageError as error:
        return (), str(error)
    return (len(data.gallery), len(data.query), len(np.unique(data.labels))), ""


@pytest.mark.slow
def test_the_command_gives_the_right_answer_or_one_message() -> None:
    done = subprocess.run(
        [sys.executable, "fuzz_inputs.py", "--seed", "1"],
        cwd=SCRIPTS, env={**os.environ, "PYTHONPATH": str(SCRIPTS.parent)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
