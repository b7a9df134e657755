"""What a sweep shows while it goes on: a table that fills up on a terminal, a line for each job elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from lshbench.runtime.journal import Job
from lshbench.runtime.logs import show_live
from lshbench.runtime.progress import duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

log = logging.getLogger(__name__)

MEASURES = ("mAP", "P@10")
MARGIN = 8
"""Lines of a terminal that the table leaves to its head, its foot and the prompt."""


STYLES = {"failed": "red", "refused": "red", "running": "bold", "waiting": "dim", "finished before": "dim"}


class View(Protocol):
    """Shows the jobs of a sweep."""

    def show(self, jobs: Sequence[Job]) -> None:
        """Show all jobs as they are now."""

    def close(self) -> None:
        """Show nothing further."""


def view_for(console: Console, keys: Sequence[str]) -> View:
    """Return a table for a terminal, and lines for a file, a pipe or a terminal that can't move its cursor.

    Args:
        console: where to.
        keys: the keys that the sweep varies; empty for all that it sets.
    """
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveTable(console, keys)
    return Lines(keys)


class Lines:
    """Logs a line for each job that has ended."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = keys
        self._told: set[int] = set()

    def show(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if job.ended is not None and job.number not in self._told:
                self._told.add(job.number)
                values = " ".join(f"{key}={value}" for key, value in chosen(job, self._keys).items())
                figures = "".join(f", {name} {_figure(job, name)}" for name in MEASURES if job.measures)
                left = time_left(jobs)
                ahead = f"; {duration(left)} left" if left else ""
                log.info("job %d of %d %s: %s%s%s", len(self._told), len(jobs), job.state, values, figures, ahead)

    def close(self) -> None:
        pass


class LiveTable:
    """Draws a table with a row for each job, and leaves it on the screen at the end."""

    def __init__(self, console: Console, keys: Sequence[str]) -> None:
        from rich.live import Live

        self._console, self._keys = console, keys
        self._jobs: list[Job] = []
        self._live = Live(console=console, get_renderable=self.fitting, refresh_per_second=2, transient=True)
        self._live.start()
        show_live(True)

    def show(self, jobs: Sequence[Job]) -> None:
        self._jobs = list(jobs)

    def close(self) -> None:
        if not self._live.is_started:
            return
        self._live.stop()
        show_live(False)
        if self._jobs:
            self._console.print(table(self._jobs, self._keys))

    def fitting(self) -> Table:
        """Return the rows that fit on the screen, around those that run."""
        room = max(3, self._console.height - MARGIN)
        first = next((row for row, job in enumerate(self._jobs) if job.state in ("running", "waiting")), 0)
        start = max(0, min(first - room // 2, len(self._jobs) - room))
        return table(self._jobs, self._keys, start, start + room)


def table(jobs: Sequence[Job], keys: Sequence[str], start: int = 0, stop: int | None = None) -> Table:
    """Return a table of jobs: the keys that the sweep varies, state, figures, time.

    Args:
        jobs: all.
        keys: as in :func:`view_for`.
        start, stop: the rows shown.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    shown = jobs[start:stop]
    columns = list(keys) or sorted({key for job in jobs for key in chosen(job, ())})
    ended = sum(job.ended is not None for job in jobs)
    caption = f"{ended} of {len(jobs)} jobs"
    if (left := time_left(jobs)) is not None and ended < len(jobs):
        caption += f", {duration(left)} left"
    if len(shown) < len(jobs):
        caption += f"; rows {start + 1} to {start + len(shown)}"
    drawn = Table(box=SIMPLE_HEAD, pad_edge=False, safe_box=True, caption=caption, caption_justify="left")
    for key in columns:
        drawn.add_column(key, overflow="fold")
    drawn.add_column("state", overflow="ellipsis", no_wrap=True)
    for name in MEASURES:
        drawn.add_column(name, justify="right", no_wrap=True)
    drawn.add_column("time", justify="right", no_wrap=True)
    for job in shown:
        values = chosen(job, columns)
        state = job.stage or job.state
        style = STYLES.get(job.state, "")
        spent = duration((job.ended or time.time()) - job.started) if job.started is not None else ""
        cells = [*(values.get(key, "") for key in columns), state, *(_figure(job, name) for name in MEASURES), spent]
        drawn.add_row(*(Text(cell) for cell in cells), style=style)
    return drawn


def chosen(job: Job, keys: Sequence[str]) -> dict[str, str]:
    """Return what a job sets of some keys, or of all for no keys."""
    values = {key.lstrip("+"): value for key, _, value in (override.partition("=") for override in job.overrides)}
    return {key: value for key, value in values.items() if key in keys} if keys else values


def time_left(jobs: Sequence[Job]) -> float | None:
    """Return the seconds that the jobs to come will take, going by those computed so far; None before the first."""
    computed = [
        (job.started, job.ended)
        for job in jobs
        if job.state in ("computed", "failed") and job.started is not None and job.ended is not None
    ]
    if not computed:
        return None
    remaining = sum(job.ended is None for job in jobs)
    # Jobs may run beside each other: what counts is how often one ends.
    return (max(ended for _, ended in computed) - min(began for began, _ in computed)) / len(computed) * remaining


def _figure(job: Job, name: str) -> str:
    value = job.measures.get(name)
    return "" if value is None else f"{value:.4f}"
