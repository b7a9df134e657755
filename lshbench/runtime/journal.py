"""What a sweep's jobs do, written by whatever process runs each and read by the one that started the sweep.

A journal is a folder with a small JSON file for each job.  It works alike for jobs in one process, in worker processes,
and on other machines that share the folder; what a killed job wrote last stays.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from filelock import FileLock, Timeout

from lshbench.types import Progress

JOURNALS = ".sweeps"
"""Where journals lie below an output folder, one folder for each sweep under way."""
LOCK = "sweep.lock"
SETTLED = 60.0
"""Seconds after which a journal that nobody holds is a dead sweep's."""
INTERVAL = 1.0
"""Seconds between two notes about the progress of one job."""

State = Literal["waiting", "running", "computed", "finished before", "failed", "refused"]


@dataclass(frozen=True)
class Job:
    """A job of a sweep.

    Attributes:
        number: from 0, in the sweep's order.
        overrides: what the job changes, such as ``bits=8``.
        state: ``refused`` is wrong use, ``failed`` any other failure.
        stage: what it is at, such as ``training 3/10 epochs``.
        started, ended: seconds since 1970, of this job.
        measures: ``mAP`` and ``P@10``, once there are any.
        message: why it failed.
        log: the file that says more about it.
        run: the finished run's folder.
    """

    number: int
    overrides: tuple[str, ...]
    state: State = "waiting"
    stage: str = ""
    started: float | None = None
    ended: float | None = None
    measures: dict[str, float | None] = field(default_factory=dict)
    message: str = ""
    log: str = ""
    run: str = ""


class Journal:
    """The notes of a sweep's jobs.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[str, tuple[tuple[int, int], Job]] = {}

    @classmethod
    @contextmanager
    def begin(cls, output: Path) -> Iterator[Self]:
        """Yield a new journal below an output folder, removed at the end; remove those of dead sweeps."""
        root = output / JOURNALS
        for leftover in root.glob("*"):
            with suppress(Timeout, OSError):
                if time.time() - leftover.stat().st_mtime > SETTLED:  # else perhaps about to be locked
                    with FileLock(leftover / LOCK, timeout=0):
                        shutil.rmtree(leftover)
        folder = root / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(4).hex()}"
        folder.mkdir(parents=True)
        try:
            # Workers on other threads, and none at all, must not release it.
            with FileLock(folder / LOCK, thread_local=False):
                yield cls(folder.absolute())
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # another sweep's is there
                root.rmdir()

    def note(self, job: Job) -> None:
        """Write what a job does now; a journal that is gone, as its sweep was killed, takes nothing."""
        path = self.folder / f"{job.number}.json"
        temporary = path.with_name(f".{job.number}.{os.urandom(4).hex()}")
        with suppress(OSError):
            temporary.write_text(json.dumps(asdict(job)), encoding="utf-8")
            temporary.replace(path)

    def jobs(self) -> dict[int, Job]:
        """Return the jobs that have begun, by number."""
        found = {}
        for entry in os.scandir(self.folder):
            if not entry.name.endswith(".json") or entry.name.startswith("."):
                continue
            with suppress(OSError, ValueError):
                status = entry.stat()
                version = status.st_ino, status.st_mtime_ns
                if self._read.get(entry.name, ((0, 0),))[0] != version:
                    content: dict[str, Any] = json.loads(Path(entry.path).read_text(encoding="utf-8"))
                    content["overrides"] = tuple(content["overrides"])
                    self._read[entry.name] = version, Job(**content)
                job = self._read[entry.name][1]
                found[job.number] = job
        return dict(sorted(found.items()))


class Reporter:
    """Notes what one job does, from the process that runs it.

    Args:
        journal: of the sweep.
        number: of the job.
        overrides: what the job changes.
    """

    def __init__(self, journal: Journal, number: int, overrides: Sequence[str]) -> None:
        self._journal = journal
        self.job = Job(number, tuple(overrides), "running", started=time.time())
        journal.note(self.job)

    def end(self, state: State, **attributes: Any) -> None:
        """Note the job's end, with further attributes of :class:`Job`."""
        self._change(state=state, stage="", ended=time.time(), **attributes)

    def progress(self, inner: Progress) -> Progress:
        """Return a progress that notes the job's stage, and hands everything on to another."""

        @contextmanager
        def noted(description: str, *, total: int | None, unit: str) -> Iterator[Any]:
            before, last, done = self.job.stage, time.monotonic(), 0
            self._change(stage=description)
            with inner(description, total=total, unit=unit) as advance:

                def count(step: int) -> None:
                    nonlocal last, done
                    done += step
                    advance(step)
                    if total and time.monotonic() - last >= INTERVAL:
                        last = time.monotonic()
                        self._change(stage=f"{description} {done / total:.0%}")

                yield count
            self._change(stage=before)

        return noted

    def _change(self, **attributes: Any) -> None:
        self.job = replace(self.job, **attributes)
        self._journal.note(self.job)
