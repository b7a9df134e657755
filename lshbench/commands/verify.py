"""``lshbench verify RUN...``: whether the files of finished runs are those that were written."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from lshbench.commands.arguments import Parser, exit_codes
from lshbench.errors import UsageError
from lshbench.text import visible

SHOWN = 256 << 20
"""Bytes of a run from which on its progress is shown."""


def main(arguments: list[str]) -> None:
    """Verify and exit: 0 whole, 1 a defect, 2 damage or wrong use."""
    given = parser().parse_args(arguments)
    with exit_codes():
        damaged = sum(_verify(path) for path in _folders(given.runs))
    sys.exit(2 if damaged else 0)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = Parser(
        prog="lshbench verify",
        description="Whether the files of finished runs are those that were written: each is read and compared with "
        "the run's manifest. A line for each damaged file; exit code 2 if there is any.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="a run, or a folder with runs below it")
    return parser


def _folders(given: list[Path]) -> Iterator[Path]:
    """Yield the folders of runs that arguments name: themselves, or the finished ones below them."""
    from lshbench.run_folder.contents import MANIFEST, METRICS
    from lshbench.run_folder.reader import finished_folders

    for path in given:
        path = path.parent if path.name == METRICS else path
        if os.path.lexists(path / METRICS) or os.path.lexists(path / MANIFEST):
            yield path
            continue
        found = list(finished_folders(path)) if path.is_dir() else []
        if not found:
            raise UsageError(f"{path}: expected a finished run, or a folder with runs below it (no {METRICS} there)")
        yield from found


def _verify(folder: Path) -> int:
    """Print what is damaged in a run's folder, or that it is whole; return how many files are damaged."""
    from lshbench.run_folder.contents import MANIFEST
    from lshbench.run_folder.manifest import Manifest
    from lshbench.runtime.logs import console
    from lshbench.runtime.progress import progress_for, silent

    try:
        manifest = Manifest.read(folder)
    except (OSError, ValueError) as error:
        return _damaged(folder / MANIFEST, error)
    if manifest is None:
        print(f"{visible(str(folder))}: no {MANIFEST}, which runs of earlier versions lack: nothing to compare with")
        return 1
    total, damaged = sum(entry.size for entry in manifest.entries.values()), 0
    progress = progress_for(console()) if total >= SHOWN else silent
    with progress(f"verifying {visible(folder.name)}", total=total, unit="bytes") as advance:
        for name in manifest.entries:
            try:
                manifest.check(folder, name, advance)
            except (OSError, ValueError) as error:
                damaged += _damaged(folder / name, error)
    if not damaged:
        print(f"{visible(str(folder))}: whole ({len(manifest.entries)} files, {total:,} bytes)")
    return damaged


def _damaged(path: Path, error: Exception) -> int:
    reason = "it is not there" if isinstance(error, FileNotFoundError) else getattr(error, "strerror", None) or error
    print(visible(f"{path} is damaged: {reason}"))
    return 1
