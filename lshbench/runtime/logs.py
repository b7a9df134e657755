"""Log lines on a terminal, above the progress bars."""

from __future__ import annotations

import logging
import os
import sys
from functools import lru_cache
from io import TextIOWrapper
from typing import TYPE_CHECKING, TextIO

from lshbench.text import visible

if TYPE_CHECKING:
    from rich.console import Console

LIVE = "LSHBENCH_LIVE"
"""Environment variable: the process that shows a table of a sweep's jobs on the terminal."""


@lru_cache(maxsize=1)
def console() -> Console:
    """Return the console of log lines and progress bars: standard error, so that results can be piped."""
    from rich.console import Console

    return Console(stderr=True)


def output_console() -> Console:
    """Return a console for results on standard output, which goes on in silence where its reader has left."""
    from rich.console import Console

    class PatientConsole(Console):
        def on_broken_pipe(self) -> None:
            # In place of rich's own, which ends the process: `| head` is no reason to end a sweep.
            self.quiet = True
            silence(sys.stdout)

    return PatientConsole()


def silence(stream: TextIO) -> None:
    """Send a stream whose reader is gone nowhere: also what it still holds, at the process's end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class PatientStream(TextIOWrapper):
    """A stream that goes on in silence where its reader has left, as ``| head`` leaves."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            silence(self)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            silence(self)


def be_patient() -> None:
    """Let this process end as it would have, and do all its work, also where nobody reads what it prints."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is TextIOWrapper:  # nothing that stands in for it, as in a notebook
            encoding, by_line = stream.encoding, stream.line_buffering
            # Names of files may hold what can't be written there.
            setattr(sys, name, PatientStream(stream.detach(), encoding, "backslashreplace", line_buffering=by_line))


def show_live(shown: bool) -> None:
    """Say, for this process and those that it starts, that a table on the terminal shows what logs would."""
    if shown:
        os.environ[LIVE] = str(os.getpid())
    else:
        os.environ.pop(LIVE, None)


def shown_live() -> bool:
    """Return whether a table on the terminal, of this process or of the one that started it, shows the work."""
    return LIVE in os.environ


class ConsoleHandler(logging.StreamHandler):
    """Writes log lines to standard error: above the progress bars on a terminal, plainly elsewhere."""

    def emit(self, record: logging.LogRecord) -> None:
        if shown_live() and (record.levelno < logging.WARNING or os.environ[LIVE] != str(os.getpid())):
            return  # the run's log has it
        try:
            shared, message = console(), visible(self.format(record), keep="\n\t")
            if shared.is_terminal:
                style = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}.get(record.levelname, "dim")
                shared.print(message, style=style, markup=False, highlight=False, soft_wrap=True)
            else:
                sys.stderr.write(message + "\n")
                sys.stderr.flush()
        except BrokenPipeError:
            silence(sys.stderr)
        except Exception:
            self.handleError(record)


class VisibleFormatter(logging.Formatter):
    """Formats the lines of a run's log, without characters that act on a terminal which shows it."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record), keep="\n\t")
