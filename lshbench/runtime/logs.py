"""Log lines on a terminal, above the progress bars."""

from __future__ import annotations

import logging
import os
import sys
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


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
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)

    return PatientConsole()


class ConsoleHandler(logging.StreamHandler):
    """Writes log lines to standard error: above the progress bars on a terminal, plainly elsewhere."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            shared = console()
            if shared.is_terminal:
                style = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}.get(record.levelname, "dim")
                shared.print(self.format(record), style=style, markup=False, highlight=False, soft_wrap=True)
            else:
                sys.stderr.write(self.format(record) + "\n")
                sys.stderr.flush()
        except Exception:
            self.handleError(record)
