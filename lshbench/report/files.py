"""The files of a report: the page, and its figures as CSV and Markdown."""

from __future__ import annotations

from pathlib import Path

from lshbench.errors import UsageError
from lshbench.report import render
from lshbench.report.page import page
from lshbench.report.report import Report
from lshbench.run_folder import atomic_file


def write_files(report: Report, out: Path) -> list[Path]:
    """Write ``report.html``, ``report.csv`` and ``report.md`` into a folder, made if need be, and return their paths.

    Raises:
        UsageError: the folder can't be written.
    """
    files = {"report.html": page(report), "report.csv": render.csv_text(report), "report.md": render.markdown(report)}
    try:
        for name, text in files.items():
            with atomic_file(out / name) as file:
                file.write(text.encode())
    except OSError as error:
        raise UsageError(f"--out {out}: expected a folder that can be written ({error})") from error
    return [out / name for name in files]
