"""Progress of long work: bars on a terminal, log lines elsewhere.

Work reports to a :class:`lshbench.types.Progress`::

    with progress("training", total=10, unit="epochs") as advance:
        for _ in range(10):
            ...
            advance(1)

Blocks may follow each other and may be nested.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress

    from lshbench.types import Progress

log = logging.getLogger(__name__)

INTERVAL = 10.0
"""Seconds between two log lines about the same work."""


@contextmanager
def silent(description: str, *, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    """Report nothing."""
    yield lambda count: None


def progress_for(console: Console) -> Progress:
    """Return bars for a terminal, and log lines for a file, a pipe or a terminal that can't move its cursor.

    Args:
        console: where bars are drawn; log lines printed on the same console stay above them.
    """
    if console.is_terminal and not console.is_dumb_terminal:
        return Bars(console)
    return LogLines()


class Bars:
    """Draws a bar for each piece of work, nested work below the work that it is part of.

    The bar of outermost work stays on the screen when it is done, so that one can see what took how long.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._shown: RichProgress | None = None
        self._open = 0

    @contextmanager
    def __call__(self, description: str, *, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
        with self._lock:
            if self._shown is None:
                self._shown = _new_bars(self._console)
                self._shown.start()
            shown, nested = self._shown, self._open > 0
            self._open += 1
        label = f"  {description}" if nested else description
        task = shown.add_task(label, total=total, unit=unit)
        finished = False
        try:
            yield lambda count: shown.advance(task, count)
            finished = True
        finally:
            if nested:
                shown.remove_task(task)
            else:
                if finished and total is None:  # the end is known now
                    shown.update(task, total=shown.tasks[shown.task_ids.index(task)].completed)
                shown.stop_task(task)
            with self._lock:
                self._open -= 1
                if self._open == 0:
                    shown.stop()
                    self._shown = None


class LogLines:
    """Logs when work starts, every ten seconds while it goes on, and when it is done.

    Nested work that takes less than ten seconds is not mentioned.
    """

    def __init__(self, interval: float = INTERVAL, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._open = threading.local()

    @contextmanager
    def __call__(self, description: str, *, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
        depth = getattr(self._open, "depth", 0)
        start = last = self._clock()
        done = 0
        mentioned = depth == 0
        if mentioned:
            log.info("%s: %s", description, "started" if total is None else f"{amount(total, None, unit)} to do")

        def advance(count: int) -> None:
            nonlocal done, last, mentioned
            done += count
            now = self._clock()
            if now - last < self._interval or (total is not None and done >= total):
                return
            last, mentioned = now, True
            rate = done / (now - start)
            if total is None:
                log.info("%s: %s, %s", description, amount(done, None, unit), speed(rate, unit))
            else:
                left = duration((total - done) / rate) if rate else "an unknown time"
                done_of = amount(done, total, unit)
                log.info("%s: %s, %s, %s left", description, done_of, speed(rate, unit), left)

        self._open.depth = depth + 1
        try:
            yield advance
        except BaseException:
            if mentioned:
                stopped = duration(self._clock() - start)
                log.info("%s: stopped at %s after %s", description, amount(done, total, unit), stopped)
            raise
        else:
            if mentioned:
                took = self._clock() - start
                counted = amount(done, None, unit)
                rate_text = f" ({speed(done / took, unit)})" if took > 0 and done else ""
                log.info("%s: %s in %s%s", description, counted, duration(took), rate_text)
        finally:
            self._open.depth = depth


def amount(done: float, total: float | None, unit: str) -> str:
    """Return "12,345/50,000 images", "12,345 images", or "1.2/3.4 GB" where the unit is bytes."""
    if unit == "bytes":
        size, name = _scaled(total if total is not None else done)
        return f"{done / size:.1f} {name}" if total is None else f"{done / size:.1f}/{total / size:.1f} {name}"
    return f"{done:,.0f} {unit}" if total is None else f"{done:,.0f}/{total:,.0f} {unit}"


def speed(rate: float, unit: str) -> str:
    """Return units a second, or seconds a unit where they are slow."""
    if unit == "bytes":
        size, name = _scaled(rate)
        return f"{rate / size:.1f} {name}/s"
    if rate >= 100:
        return f"{rate:,.0f} {unit}/s"
    if rate >= 0.5:
        return f"{rate:.1f} {unit}/s"
    if rate > 0:
        return f"{1 / rate:.1f} s each"
    return f"0 {unit}/s"


def duration(seconds: float) -> str:
    """Return "0.4 s", "12 s", "3 min 05 s" or "2 h 07 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _scaled(size: float) -> tuple[float, str]:
    for name, unit in (("GB", 1e9), ("MB", 1e6)):
        if size >= unit:
            return unit, name
    return 1e3, "kB"


def _new_bars(console: Console) -> RichProgress:
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.table import Column
    from rich.text import Text

    class Amount(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(amount(task.completed, task.total, task.fields["unit"]), style="progress.download")

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            rate = task.finished_speed or task.speed
            if task.stop_time is not None and task.elapsed:
                rate = task.completed / task.elapsed
            text = speed(rate, task.fields["unit"]) if rate else ""
            # The amount beside it says the unit.
            return Text(text.replace(f" {task.fields['unit']}/", "/"), style="progress.data.speed")

    class Left(ProgressColumn):
        max_refresh = 0.5

        def render(self, task: Task) -> Text:
            if task.stop_time is not None or task.finished:
                return Text(duration(task.elapsed or 0), style="progress.elapsed")
            left: Any = task.time_remaining
            return Text("" if left is None else f"{duration(left)} left", style="progress.remaining")

    def column(min_width: int, justify: Any = "right") -> Column:
        # Wide enough that the bars of consecutive work stand below each other on 80 columns.
        return Column(no_wrap=True, min_width=min_width, justify=justify, overflow="ellipsis")

    return Progress(
        TextColumn("{task.description}", markup=False, table_column=column(27, "left")),
        BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=8)),
        Amount(table_column=column(20)),
        Speed(table_column=column(9)),
        Left(table_column=column(11)),
        console=console,
        expand=True,
        refresh_per_second=5,
    )
