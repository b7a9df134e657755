"""Processes of their own, forked from one that has imported the libraries already: the real command, or some code."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

# Importing these takes longer than most commands. None reads a variable that a test sets: the Hub's libraries do.
IMPORTED = (
    "lshbench.cli", "hydra.main", "hydra.utils", "numba", "pyarrow.parquet", "matplotlib.figure", "torch._dynamo",
    "torchvision", "sklearn.cluster", "pandas", "pyarrow.dataset", "httpcore2",
)  # fmt: skip
TIMEOUT = 1200


def run_command(
    arguments: Sequence[str], cwd: Path, environment: Mapping[str, str], prepare: Callable[[], object] = int
) -> subprocess.CompletedProcess:
    """Run ``python -m lshbench`` with the arguments; returns its exit code and output.

    A command that must import its libraries itself is run through :mod:`subprocess` instead.  ``prepare`` is called in
    the command's process before it begins; it can be pickled.
    """
    return _run(_module, list(arguments), cwd, environment, prepare)


def run_code(code: str, cwd: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess:
    """Run ``python -c code``, likewise."""
    return _run(_code, code, cwd, environment)


def _module(arguments: list[str]) -> None:
    sys.argv = ["lshbench", *arguments]
    runpy.run_module("lshbench", run_name="__main__", alter_sys=True)


def _code(code: str) -> None:
    exec(code, {"__name__": "__main__"})


def _run(
    function: Callable,
    argument: object,
    cwd: Path,
    environment: Mapping[str, str],
    prepare: Callable[[], object] = int,
) -> subprocess.CompletedProcess:
    # Forked from neither pytest nor a test: their threads would be missing in the copy.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        process = context.Process(
            target=_replace, args=(function, argument, str(cwd), dict(environment), str(out), str(err), prepare)
        )
        process.start()
        process.join(TIMEOUT)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired([str(argument)], TIMEOUT, out.read_bytes(), err.read_bytes())
        texts = out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8")
        return subprocess.CompletedProcess([str(argument)], process.exitcode, *texts)


def _replace(
    function: Callable,
    argument: object,
    cwd: str,
    environment: dict[str, str],
    out: str,
    err: str,
    prepare: Callable[[], object],
) -> None:
    """Give this process another folder, environment and output, and call the function in it."""
    for path, descriptor in ((out, 1), (err, 2)):
        file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", buffering=1, closefd=False)
    prepare()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0:0] = [cwd]
    function(argument)
