"""Tables and pages of finished runs: the summary at the end of a run, and the report that compares runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lshbench.run_folder import Run

__all__ = ["write_report"]


def write_report(runs: Path | Sequence[Run], out: Path) -> Path:
    """Write ``report.html``, ``report.csv`` and ``report.md`` into a folder, and return the page's path.

    Args:
        runs: finished runs, or a folder with runs below it.
        out: the folder, made if need be.

    Raises:
        UsageError: there is no finished run, or the folder can't be written.
    """
    from lshbench.report.build import build_report
    from lshbench.report.files import write_files
    from lshbench.report.select import find, once

    selection = find([runs]) if isinstance(runs, Path) else once(runs)
    return write_files(build_report(selection), out)[0]
