"""A multirun as a whole: its jobs' journal, what is shown while it goes on, and how it ends.

Hydra starts jobs through a launcher, in this process or in others, and tells nobody what became of them all: each job
notes that itself (:mod:`lshbench.runtime.journal`), and the process that the user started reads the notes.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import Any, cast, get_args

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobRuntime
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from lshbench.commands.sweep_view import view_for
from lshbench.errors import UsageError
from lshbench.runtime.journal import Job, Journal, Reporter, State
from lshbench.runtime.logs import console

log = logging.getLogger(__name__)

SWEEP = "lshbench_sweep"
"""Key in what Hydra hands on to the processes of jobs: the sweep's journal, and the process that began it."""
FLAGS = "lshbench_flags"
"""Key there: the flags of the sweep's command that repeat its jobs, too."""
INTERVAL = 0.5
"""Seconds between two looks at the journal."""
PATIENCE = 2.0
"""Seconds after an interrupt in which a compiled loop may come to its end."""

current: Sweep | None = None
"""The sweep that this process has started."""
working = threading.Lock()
"""Held while this process computes a job."""


class SweepCallback(Callback):
    """Begins a sweep once Hydra has composed its configuration."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        global current
        current = Sweep(Path(str(config.output)), planned(config))


def reporter(number: int, overrides: Sequence[str]) -> Reporter | None:
    """Return what notes a job's fate, None where the sweep that it belongs to can't be told."""
    handed_on = JobRuntime.instance().conf.get(SWEEP)
    if handed_on is None:
        return None
    if handed_on.process == os.getppid():
        _leave_with(handed_on.process)
    return Reporter(Journal(Path(handed_on.journal)), number, overrides)


@cache
def _leave_with(parent: int) -> None:
    """End this process after its job where its parent is killed: joblib's workers would wait for it for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(INTERVAL)
        with working:
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Sweep:
    """A sweep that this process has started: shows what its jobs do, and how many did what at its end.

    Args:
        output: the folder below which its runs go.
        planned: each job's overrides; empty where a sweeper decides as it goes.
    """

    def __init__(self, output: Path, planned: list[tuple[str, ...]]) -> None:
        self._held = ExitStack()
        self._journal = self._held.enter_context(Journal.begin(output))
        self._output = output
        self._planned = planned
        JobRuntime.instance().set(SWEEP, {"journal": str(self._journal.folder), "process": os.getpid()})
        self._view = view_for(console(), _varied(planned))
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        self._interruption = threading.Thread(target=self._exit_when_interrupted, daemon=True)
        if threading.current_thread() is threading.main_thread():
            self._bell, bell = socket.socketpair()
            bell.setblocking(False)
            signal.set_wakeup_fd(bell.fileno(), warn_on_full_buffer=False)
            self._held.callback(bell.close)  # which ends the thread
            self._held.callback(signal.set_wakeup_fd, -1)
            self._interruption.start()

    def jobs(self) -> list[Job]:
        """Return all jobs, in their order."""
        begun = self._journal.jobs()
        planned = {number: Job(number, overrides) for number, overrides in enumerate(self._planned)}
        return list((planned | begun).values())

    def end(self, fault: str = "") -> int:
        """End what is shown, say what became of the jobs, write their report, and return the exit code.

        Args:
            fault: why the launcher gave up, if it did.

        Returns:
            0 where every job is finished; 2 where others were refused, all for wrong use; else 1.
        """
        jobs = self._close()
        states = {job.state for job in jobs}
        lines = [counts(jobs)]
        for job in jobs:
            if job.state in ("failed", "refused"):
                lines.append(f"  {job.state}: {' '.join(job.overrides) or '(no overrides)'}")
                lines.append(f"    {job.message}" + (f" (log: {job.log})" if job.log else ""))
        if fault:
            lines.append(f"The launcher gave up: {fault}")
        if fault or states - {"computed", "finished before"}:
            lines.append("The same command does what is missing, and nothing again.")
        if (page := _page(jobs, self._output / "report")) is not None:
            lines.append(f"report of these runs: {page}")
        _say(["", *lines])
        if fault or states & {"failed", "running", "waiting"}:
            return 1
        return 2 if "refused" in states else 0

    def interrupted(self) -> None:
        """Say how to go on after an interrupt."""
        _say(["", _interruption(self._close())])

    def abandon(self) -> None:
        """End a sweep that began no job."""
        self._close()

    def begun(self) -> bool:
        """Return whether any job has begun."""
        return bool(self._journal.jobs())

    def _close(self) -> list[Job]:
        self._over.set()
        self._watcher.join()
        jobs = self.jobs()
        self._view.show(jobs)
        self._view.close()
        JobRuntime.instance().set(SWEEP, None)
        self._held.close()
        return jobs

    def _watch(self) -> None:
        while not self._over.wait(INTERVAL):
            with suppress(OSError):
                self._view.show(self.jobs())

    def _exit_when_interrupted(self) -> None:
        """End the process where Python can't: its own handler waits for compiled code to return."""
        with suppress(OSError):
            while number := self._bell.recv(1):
                if number[0] == signal.SIGINT:
                    time.sleep(PATIENCE)
                    if not self._over.is_set():
                        self._view.close()
                        _say([_interruption(self.jobs())])
                        os._exit(130)


def counts(jobs: Sequence[Job]) -> str:
    """Return such as ``24 jobs: 20 computed, 3 finished before, 1 failed``."""
    names = {state: state for state in get_args(State)} | {"running": "stopped", "waiting": "not begun"}
    found = Counter(job.state for job in jobs)
    return f"{len(jobs)} jobs: {', '.join(f'{found[state]} {name}' for state, name in names.items() if found[state])}"


def _page(jobs: Sequence[Job], out: Path) -> Path | None:
    """Write the report of a sweep's finished runs; return the page's path."""
    from lshbench.report import write_report
    from lshbench.run_folder import Run

    folders = dict.fromkeys(job.run for job in jobs if job.run)
    if not folders:
        return None
    try:
        return write_report([Run.open(Path(folder)) for folder in folders], out)
    except (UsageError, OSError) as error:
        log.warning("the report is missing: %s", error)
        return None


def given_overrides(config: DictConfig) -> list[str]:
    """Return a command's overrides as they were given: what they refer to is a job's."""
    return cast(list[str], OmegaConf.to_container(config.hydra.overrides.task, resolve=False))


def planned(config: DictConfig) -> list[tuple[str, ...]]:
    """Return the overrides of each job that Hydra's own sweeper will make."""
    if not str(config.hydra.sweeper._target_).endswith(".BasicSweeper"):
        return []
    given = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())  # which glob() asks for options
    overrides = parser.parse_overrides([*given, *given_overrides(config)])
    return [tuple(job) for batch in BasicSweeper.split_arguments(overrides, None) for job in batch]


def _varied(planned: Sequence[Sequence[str]]) -> list[str]:
    """Return the keys that a sweep varies."""
    values: dict[str, set[str]] = {}
    for overrides in planned:
        for override in overrides:
            key, _, value = override.partition("=")
            values.setdefault(key.lstrip("+"), set()).add(value)
    return [key for key, found in values.items() if len(found) > 1]


def _interruption(jobs: Sequence[Job]) -> str:
    done = sum(job.state in ("computed", "finished before") for job in jobs)
    return (
        f"lshbench: interrupted with {done} of {len(jobs)} jobs finished; "
        "the sweep goes on where it was when the same command is given again"
    )


def _say(lines: Sequence[str]) -> None:
    with suppress(BrokenPipeError):
        sys.stderr.write("".join(f"{line}\n" for line in lines))
        sys.stderr.flush()


def keep_flags(flags: Sequence[str]) -> None:
    """Keep the flags that repeat this command's jobs for the processes that run them."""
    JobRuntime.instance().set(FLAGS, list(flags))


def kept_flags() -> list[str]:
    """Return the flags of the command that this process, or the one that started it, was called with."""
    return list(JobRuntime.instance().conf.get(FLAGS, []))
