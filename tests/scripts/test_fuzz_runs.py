"""Damages of run folders made at random: the command gives the right answer or one message."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.mark.slow
def test_damaged_runs_give_the_right_answer_or_one_message() -> None:
    done = subprocess.run(
        [sys.executable, "fuzz_runs.py", "--seed", "1"],
        cwd=SCRIPTS, env={**os.environ, "PYTHONPATH": str(SCRIPTS.parent)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
