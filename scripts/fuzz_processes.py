"""Cases of the fuzz scripts, tried one after the other in processes forked from one that has imported the libraries.

Forking a process of that size costs more than most cases, so that one does many: what a command changes in its process
is taken back after each.  Each case still has its own folder, output, memory peak and alarm.  If one ends the process
(by a signal, its alarm, or an exit of a library's), it is known from what the process had begun, and another process
does the rest.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

SECONDS, BYTES = 60, 2 << 30
TOGETHER = 40
"""Cases that one process does."""
SHOWN = 20_000
"""Characters of a case's output that are kept: pages of a few MB each would add up."""


@dataclass
class Outcome:
    """What became of a case.

    Attributes:
        code: exit code, or the negative number of a signal.
        seconds: it took.
        bytes: of memory at most, that of the libraries included.
        output: what was printed.
        fault: what is wrong with it; empty if nothing is.
    """

    code: int
    seconds: float
    bytes: int
    output: str
    fault: str = ""


@dataclass
class Trial:
    """A case whose files are written.

    Attributes:
        name: says what it is.
        folder: in which it is tried; it is removed afterwards.
        do: calls what is tried.
        judge: returns what is wrong with an outcome.
        alone: whether it is given a process of its own, as what it changes there can't be taken back.
    """

    name: str
    folder: Path
    do: Callable[[], object]
    judge: Callable[[Outcome], str]
    alone: bool = False

    @property
    def output(self) -> Path:
        """Return the file that takes what is printed."""
        return self.folder.with_suffix(".output")


def command(arguments: Sequence[str]) -> None:
    """Do what ``lshbench`` does with these arguments."""
    from lshbench.cli import main

    sys.argv[:] = ["lshbench", *arguments]
    main()


Tried = tuple[int, str, Outcome]


def in_processes(numbers: Sequence[int], prepare: Callable[[int], Trial], place: Path, jobs: int) -> list[Tried]:
    """Return the numbers, names and outcomes of cases, done by so many processes at a time.

    Args:
        numbers: of the cases.
        prepare: writes a case's files below the place.
        place: a folder.
        jobs: processes at a time.
    """
    parts = [(numbers[start : start + TOGETHER], prepare, place) for start in range(0, len(numbers), TOGETHER)]
    if jobs == 1 or len(parts) == 1:
        return [tried for part in parts for tried in _part(part)]
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        done: list[Tried] = []
        for part in pool.imap(_part, parts):
            done += part
            sys.stderr.write(f"\r{len(done)} of {len(numbers)}")
        sys.stderr.write("\n")
        return done


def _part(given: tuple[Sequence[int], Callable[[int], Trial], Path]) -> list[Tried]:
    numbers, prepare, place = given
    record = place / f"record-{numbers[0]}"
    done: list[Tried] = []
    while len(done) < len(numbers):
        process = os.fork()
        if process == 0:
            _record(numbers[len(done) :], prepare, record)
        _, status, used = os.wait4(process, 0)
        begun, found = _recorded(record)
        done += found
        if begun is None and len(done) < len(numbers):
            sys.exit(f"the files of case {numbers[len(done)]} can't be made, or its outcome not be judged")
        if begun is not None:
            number, name, output, started = begun
            code = os.waitstatus_to_exitcode(status)
            ended = Outcome(code, time.time() - started, used.ru_maxrss << 10, _text(output), _ended(code))
            done.append((number, name, ended))
    record.unlink()
    return done


def _record(numbers: Sequence[int], prepare: Callable[[int], Trial], record: Path) -> None:
    """Do cases in this process, which ends with them, and write down each when it is begun and when it is done."""
    resource.setrlimit(resource.RLIMIT_DATA, (2 * BYTES, 2 * BYTES))
    try:
        with record.open("wb", buffering=0) as file:
            for number in numbers:
                trial = prepare(number)
                file.write(pickle.dumps((number, trial.name, trial.output, time.time())))
                outcome = attempt(trial)
                outcome.output = outcome.output[-SHOWN:]
                file.write(pickle.dumps(outcome))
                shutil.rmtree(trial.folder, ignore_errors=True)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _recorded(record: Path) -> tuple[tuple[int, str, Path, float] | None, list[Tried]]:
    """Return the case that was begun and not done, if there is one, and those that were done."""
    begun, done = None, []
    with record.open("rb") as file, suppress(EOFError):
        while True:
            begun = pickle.load(file)
            done.append((begun[0], begun[1], pickle.load(file)))
            begun = None
    return begun, done


def _ended(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"the process ended with {code}"


def attempt(trial: Trial, seconds: float = SECONDS) -> Outcome:
    """Do a case and judge it."""
    started = time.perf_counter()
    if trial.alone:
        process = os.fork()
        if process == 0:
            os._exit(_call(trial, seconds))
        _, status, used = os.wait4(process, 0)
        code, peak = os.waitstatus_to_exitcode(status), used.ru_maxrss << 10
    else:
        _forget_peak()
        code = _call(trial, seconds)
        peak = _peak()
    outcome = Outcome(code, time.perf_counter() - started, peak, _text(trial.output))
    outcome.fault = trial.judge(outcome)
    trial.output.unlink(missing_ok=True)
    return outcome


def _call(trial: Trial, seconds: float) -> int:
    """Do a case in this process; return the code that it would have ended with."""
    with _taken_back(trial.output):
        os.chdir(trial.folder)
        os.environ["HOME"] = str(trial.folder)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            trial.do()
            return 0
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except BaseException:
            traceback.print_exc()
            return 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def _taken_back(output: Path) -> Iterator[None]:
    """Send what is printed to a file, and take back afterwards what a command changes in its process."""
    environment, folder, path, arguments = dict(os.environ), Path.cwd(), list(sys.path), list(sys.argv)
    streams, kept = (sys.stdout, sys.stderr), (os.dup(1), os.dup(2))
    descriptor = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for stream, (name, errors) in enumerate((("stdout", "strict"), ("stderr", "backslashreplace")), start=1):
        os.dup2(descriptor, stream)
        setattr(sys, name, open(stream, "w", encoding="utf-8", errors=errors, closefd=False))  # noqa: SIM115
    os.close(descriptor)
    try:
        yield
    finally:
        for written in (sys.stdout, sys.stderr):
            with suppress(Exception):
                written.flush()
        for name in (None, "lshbench"):
            logger = logging.getLogger(name)
            for handler in list(logger.handlers):
                logger.removeHandler(handler)
                handler.close()
        sys.stdout, sys.stderr = streams
        for stream, original in enumerate(kept, start=1):
            os.dup2(original, stream)
            os.close(original)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        sys.path[:], sys.argv[:] = path, arguments


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _forget_peak() -> None:
    """Let the kernel measure this process's peak of memory anew; where it doesn't, the peak is that of all cases."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """Return how much memory this process took at most, in bytes."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
