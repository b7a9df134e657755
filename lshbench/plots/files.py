"""Figures for a paper, as files: those of a report, or of a single run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure

from lshbench.errors import UsageError
from lshbench.plots import draw
from lshbench.plots.comparison.figures import report_figures
from lshbench.plots.gallery import gallery, queries_with_pictures
from lshbench.plots.style import PAPER, Medium, write_figure
from lshbench.report.report import Report
from lshbench.run_folder import Run, atomic_file

FORMATS = ("pdf", "svg")


def run_figures(run: Run, medium: Medium) -> Iterator[tuple[str, Figure]]:
    """Yield every plot of a run that there is something to draw in, with a file's name without its ending."""
    for name, figure in draw.figures(run, medium):
        yield Path(name).stem, figure
    pictures = gallery([run], queries_with_pictures(run), medium)
    if pictures is not None:
        yield "retrieval", pictures


def write_figures(report: Report, out: Path, format: str) -> list[Path]:
    """Write every figure of a report into a folder, made if need be, and return their paths.

    A report of one run has that run's own plots; one of several, those that compare configurations.

    Args:
        report: of selected runs.
        out: the folder.
        format: one of :data:`FORMATS`.

    Raises:
        UsageError: the folder can't be written, or there is nothing to draw.
    """
    runs = report.selection.runs
    figures: Iterator[tuple[str, Figure]] = report_figures(report, PAPER)
    if len(runs) == 1:
        figures = run_figures(runs[0], PAPER)
    written = []
    try:
        for name, figure in figures:
            path = out / f"{name}.{format}"
            with atomic_file(path) as file:
                write_figure(figure, file, format)
            written.append(path)
    except OSError as error:
        raise UsageError(f"--figures {out}: expected a folder that can be written ({error})") from error
    if not written:
        raise UsageError(f"--figures {out}: these runs have nothing to draw: expected two configurations, or one run")
    return written
