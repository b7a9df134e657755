"""``lshbench extract``: the features of a configuration's images alone, by any number of processes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

from omegaconf import DictConfig

from lshbench.commands import run
from lshbench.runtime.cache import share_cache
from lshbench.runtime.journal import Reporter
from lshbench.runtime.logs import console, shown_live
from lshbench.runtime.progress import progress_for, silent

HELP = """\
usage: lshbench extract [-m] [--parquet DIR] [key=value ...]

Extract the features that `lshbench run` with the same keys would need into the store, and nothing else. It can be
stopped or killed: the same command goes on with the shards that were in hand. Processes that are given the
same command share the work: lshbench extract -m worker='range(4)' hydra/launcher=joblib

options:
  --parquet DIR   write the features, with labels, numbers and names, to DIR/train.parquet (the gallery's split) and
                  DIR/test.parquet (the queries'), and a training set of the data set's own to DIR/training_set.parquet
  other flags and keys are those of lshbench run (lshbench run --help)
"""

FLAG = "--parquet"

_parquet: Path | None = None
"""The folder that this process's command named."""


def task(config: DictConfig) -> float | None:
    """Run one job of Hydra's: extract what the composed configuration asks for."""
    return run.carry_out(config, _extract)


def _extract(
    config: DictConfig, folder: Path, command: list[str], *, resume: bool, reporter: Reporter | None = None
) -> None:
    plain = run.resolved(config)
    share_cache(plain["cache"])
    from lshbench.extraction import extract_config  # takes seconds, which a wrong flag should not

    progress = (
        progress_for(console())
        if reporter is None
        else reporter.progress(silent if shown_live() else progress_for(console()))
    )
    extract_config(plain, progress, _parquet)


def main(arguments: list[str]) -> None:
    """Run ``lshbench extract`` and exit: 0 done, 1 a job failed, 2 wrong use."""
    global _parquet
    if {"-h", "--help"} & set(arguments):
        print(HELP, end="")
        return
    arguments, folder = _taken(arguments)
    if folder is not None:
        if {"-m", "--multirun"} & set(arguments):
            _stop(f"{FLAG} with -m: expected one of them; extract with -m first, then write the files without it")
        _parquet = Path(folder).expanduser().absolute()
    run.main(arguments, task)


def _taken(arguments: list[str]) -> tuple[list[str], str | None]:
    """Return the arguments without ``--parquet DIR``, and the folder."""
    kept, folder, rest = [], None, iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name == FLAG:
            folder = value if equals else next(rest, "")
            if not folder or folder.startswith("-"):
                _stop(f"{FLAG}={folder!r}: expected a folder for the files")
        else:
            kept.append(argument)
    return kept, folder


def _stop(message: str) -> NoReturn:
    sys.stderr.write(f"lshbench: {message}\n")
    sys.exit(2)
