"""The runs of the documentation's tables: methods x bits x seeds x data sets, in as many sittings as one likes.

    python scripts/bench_methods.py                                  # CIFAR-10 and CIFAR-100 from the Hub
    python scripts/bench_methods.py --path cifar10_images=DIR --path cifar100_images=DIR --minutes 50
    python scripts/bench_methods.py --bits 16 32 64 cifar100_images=128
    python scripts/bench_methods.py --tables ablation wide --bits 64 # what fourier's parts, and its size, are worth
    python scripts/bench_methods.py --tables unseen --out DIR --run protocol=unseen_classes backbone.image_size=128
    python scripts/bench_methods.py --tables bytes bytes_trained --bits 64 128 256 512   # codes at 8 to 64 bytes
    python scripts/bench_methods.py --tables engines --bits 64 128 256 512 --run 'index.nbits=${bits}'
    lshbench report outputs/bench_methods --table labels             # the table of the runs that are there

Every point is one `lshbench run` in a process and a folder of its own below --out.  A point whose folder is finished
is not run again, and one that was killed goes on from its checkpoint; after a change of code or of a method's defaults,
take another --out.  Rows are those of conf/table; what a row says of its runs is what they are asked for.  A code
length that a method refuses is named, and has no cell in the table.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from filelock import FileLock, Timeout

from lshbench import __version__
from lshbench.config import conf_folder
from lshbench.errors import UsageError
from lshbench.report.select import shown
from lshbench.report.table_file import Row, find_table, read_table
from lshbench.run_folder import Run
from lshbench.run_folder.contents import METRICS
from lshbench.runtime.progress import duration
from lshbench.runtime.threads import available_cores

KEYS = (
    "threads=1",
    "evaluation.plots=false",
    "evaluation.definitions=false",
    "reference.time=false",
    "reference.classifier=false",
)
"""Of every run: one thread each, and nothing that the tables don't show."""

NOT_COMPARED = frozenset({"cache", "dataset.path", "device", "reference.classifier", "threads"})
"""Keys that may change from one sitting to the next; no table shows the classifier."""

SECONDS = {
    "fourier-paper": 180, "fourier-design": 180, "fourier-wide": 270, "neural": 53, "orthohash": 37, "csq": 37,
    "dpn": 37, "greedyhash": 37, "hashnet": 37, "neural-none": 53, "cibhash": 45, "bihalf": 37, "spectral": 8, "itq": 9,
    "pca_rotation": 8, "pca_sign": 8, "random_projection": 5,
}  # fmt: skip
"""About what a run takes of a core, on CIFAR-10's images: only estimates of time rest on it."""

OTHER_SECONDS = 90

WRONG_USE = 2
"""Exit code of a run whose keys don't go together."""

PRELOADED = [
    "datasets",
    "faiss",
    "lshbench.commands.run",
    "lshbench.experiment",
    "lshbench.report.summary",
    "pyarrow.parquet",
    "torch._dynamo",
]
"""What the runs' processes are forked with: importing it takes seconds.  Optimizers import the last."""


def rows_of(table: str) -> dict[str, Row]:
    """Return the rows that a table shows and that have runs, by name, in the order in which they are run.

    The most wanted and longest come first, so that short runs fill the end.
    """
    folders = [conf_folder()]
    file = read_table(find_table(table, folders), folders)
    shown_names = {row.name for grid in file.grids for row in grid.rows}
    return {row.name: row for row in file.rows if row.where and row.name in shown_names}


METHODS = rows_of("base/methods")


@dataclass(frozen=True)
class Point:
    """One run."""

    dataset: str
    method: str
    bits: int
    seed: int

    def __str__(self) -> str:
        return f"{self.dataset} {self.method} {self.bits} bits seed {self.seed}"


@dataclass(frozen=True)
class Sweep:
    """What is asked for.

    Attributes:
        out: the folder of all runs.
        datasets, methods: names, in the order in which they are run.
        tables: names, to say how they are made.
        bits: code lengths of each data set, ascending.
        seeds: of each point.
        paths: local copies of data sets, by name.
        keys: further keys of every run.
    """

    out: Path
    datasets: list[str]
    tables: list[str]
    methods: list[str]
    bits: dict[str, list[int]]
    seeds: list[int]
    paths: dict[str, str]
    keys: list[str]

    def points(self) -> list[Point]:
        """Return every point, in the order of running."""
        return [
            Point(dataset, method, bits, seed)
            for method in self.methods
            for seed in self.seeds
            for dataset in self.datasets
            for bits in self.bits[dataset]
        ]

    def folder(self, point: Point) -> Path:
        """Return where a point's run lies."""
        return self.out / point.dataset / point.method / f"{point.bits}-{point.seed}"

    def log(self, point: Point) -> Path:
        """Return what a point's process says, kept if it fails."""
        return self.folder(point).with_suffix(".log")

    def overrides(self, point: Point) -> list[str]:
        """Return the keys that make a point."""
        path = self.paths.get(point.dataset)
        return [
            f"dataset={point.dataset}",
            *(f"{key}={shown(value)}" for key, value in METHODS[point.method].where.items()),
            f"bits={point.bits}",
            f"seed={point.seed}",
            *KEYS,
            *([] if path is None else [f"dataset.path={quoted(path)}"]),
            *self.keys,
        ]

    def find(self, point: Point) -> Run | None:
        """Return a point's finished run, or None.

        Raises:
            UsageError: the run was made with other settings, or by another version.
        """
        folder = self.folder(point)
        if not (folder / METRICS).exists():
            return None
        run = Run.open(folder)
        recorded, asked = settings(run.metrics.command[2:]), settings(self.overrides(point))
        if recorded != asked:
            raise UsageError(
                f"{folder} was made with {differing(recorded, asked)}, and {differing(asked, recorded)} is asked "
                "for: expected another --out, or that folder removed"
            )
        if (version := run.metrics.environment["lshbench"]) != __version__:
            raise UsageError(
                f"{folder} was made by lshbench {version}, and this is {__version__}: expected another --out"
            )
        return run


def quoted(text: str) -> str:
    """Return a value as Hydra's grammar has to see it."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def settings(overrides: Sequence[str]) -> dict[str, str]:
    """Return the keys that decide a run's figures, with their values."""
    pairs = (override.partition("=") for override in overrides)
    return {key: value for key, _, value in pairs if key not in NOT_COMPARED}


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> str:
    """Return what one has and the other has not."""
    return ", ".join(f"{key}={value}" for key, value in one.items() if other.get(key) != value) or "nothing else"


# --- Running -----------------------------------------------------------------------------------------------------


class Pace:
    """Estimates of seconds: those of :data:`SECONDS`, scaled by what finished runs took."""

    def __init__(self) -> None:
        self._taken = self._expected = 0.0

    def add(self, point: Point, run: Run) -> None:
        """Learn from a finished run."""
        times = run.metrics.time_s
        self._taken += times["total"] - times.get("extract", 0.0)
        self._expected += SECONDS.get(point.method, OTHER_SECONDS)

    def seconds(self, point: Point) -> float:
        """Return what a run is expected to take."""
        return SECONDS.get(point.method, OTHER_SECONDS) * (self._taken / self._expected if self._expected else 1.0)


class Sitting:
    """Runs points in worker processes until all are done or the time is over.

    Attributes:
        runs: the finished ones.
        refusals: why a point can't be: wrong use of a method, such as a code length that it has not.
        failures: why a point failed.
    """

    def __init__(self, sweep: Sweep, runs: dict[Point, Run], pace: Pace, workers: int, seconds: float) -> None:
        self.runs = runs
        self.refusals: dict[Point, str] = {}
        self.failures: dict[Point, str] = {}
        self._sweep = sweep
        self._pace = pace
        self._workers = workers
        self._deadline = time.monotonic() + seconds
        self._total = len(sweep.points())
        self._pending = [point for point in sweep.points() if point not in runs]
        self._running: dict[int, tuple[Point, BaseProcess]] = {}
        forks = "forkserver" in multiprocessing.get_all_start_methods()
        self._context = multiprocessing.get_context("forkserver" if forks else "spawn")
        if forks:
            os.environ["OMP_NUM_THREADS"] = "1"  # no library may start threads before the forks
            self._context.set_forkserver_preload(PRELOADED)

    def run(self) -> None:
        """Run what fits into the time; a failed point doesn't keep others from being run."""
        try:
            while True:
                while len(self._running) < self._workers and (point := self._next()) is not None:
                    self._start(point)
                if not self._running:
                    return
                for sentinel in wait(list(self._running)):
                    self._finish(*self._running.pop(sentinel))
        finally:
            for _, process in self._running.values():
                process.terminate()
            for _, process in self._running.values():
                process.join()

    def _next(self) -> Point | None:
        """Take the first point that is expected to end in time."""
        left = self._deadline - time.monotonic()
        point = next((point for point in self._pending if self._pace.seconds(point) <= left), None)
        if point is not None:
            self._pending.remove(point)
        return point

    def _start(self, point: Point) -> None:
        folder, log = self._sweep.folder(point), self._sweep.log(point)
        log.parent.mkdir(parents=True, exist_ok=True)
        arguments = [*self._sweep.overrides(point), f"hydra.run.dir={quoted(str(folder))}"]
        process = self._context.Process(target=run_point, args=(log, arguments), name=str(point))
        process.start()
        self._running[process.sentinel] = point, process

    def _finish(self, point: Point, process: BaseProcess) -> None:
        process.join()
        log = self._sweep.log(point)
        run = self._sweep.find(point) if process.exitcode == 0 else None
        if run is None:
            reason = why(process.exitcode, log)
            refused = process.exitcode == WRONG_USE
            (self.refusals if refused else self.failures)[point] = reason
            result = f"{'refused' if refused else 'FAILED'}: {reason}"
        else:
            log.unlink(missing_ok=True)
            self.runs[point] = run
            self._pace.add(point, run)
            result = f"mAP {run.metrics.metrics['mAP']:.4f} in {duration(run.metrics.time_s['total'])}"
        left = [*self._pending, *(other for other, _ in self._running.values())]
        remaining = sum(map(self._pace.seconds, left)) / self._workers
        print(f"[{len(self.runs)}/{self._total}] {point}: {result}; about {duration(remaining)} left", flush=True)


def run_point(log: Path, arguments: list[str]) -> None:
    """Be `lshbench run` in a process of its own, which ends with its parent."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from lshbench.commands.run import main

    main(arguments)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def why(code: int | None, log: Path) -> str:
    """Return why a point's process failed: the last thing it said, or its signal."""
    if code is not None and code < 0:
        return f"ended by signal {-code} ({log})"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f"{lines[-1].strip() if lines else f'exit code {code}'} ({log})"


# --- Command line ------------------------------------------------------------------------------------------------


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("outputs/bench_methods"), help="where the runs go (default: %(default)s)")
    add("--datasets", nargs="+", default=["cifar10_images", "cifar100_images"], metavar="NAME")
    add(
        "--tables",
        nargs="+",
        default=["labels", "unsupervised"],
        metavar="NAME",
        help="files of conf/table, whose rows are run (default: %(default)s)",
    )
    add(
        "--methods",
        nargs="+",
        choices=list(METHODS),
        metavar="NAME",
        help=f"these rows in place of the tables', of {', '.join(METHODS)}",
    )
    add(
        "--bits",
        nargs="+",
        default=["16", "32", "64"],
        metavar="N",
        help="or DATASET=N, for one data set beside the rest",
    )
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N")
    add("--path", action="append", default=[], metavar="DATASET=DIR", help="a data set's local copy")
    add(
        "--run",
        nargs="*",
        default=["backbone.image_size=128"],
        metavar="KEY=VALUE",
        help="further keys of every run, in place of %(default)s",
    )
    add("--workers", type=int, default=available_cores(), help="runs at a time (default: one a core, %(default)s)")
    add("--minutes", type=float, default=float("inf"), help="start no run that is not expected to end by then")
    add("--list", action="store_true", help="print the points and what is done, and run nothing")
    return parser.parse_args(arguments)


def sweep_of(options: argparse.Namespace) -> Sweep:
    """Return what the options ask for, checked.

    Raises:
        UsageError: a value that can't be meant.
    """
    if options.workers < 1:
        raise UsageError(f"--workers {options.workers}: expected at least 1")
    wanted = options.methods or [name for table in options.tables for name in rows_of(table)]
    for name in wanted:
        if name not in METHODS:
            raise UsageError(f"--tables {' '.join(options.tables)}: expected tables whose rows are of base/methods")
    bits: dict[str, set[int]] = {dataset: set() for dataset in options.datasets}
    for text in options.bits:
        dataset, separator, number = text.rpartition("=")
        if not number.isdigit() or (separator and dataset not in bits):
            raise UsageError(f"--bits {text}: expected a number, or DATASET=NUMBER of one of {', '.join(bits)}")
        for name in [dataset] if separator else bits:
            bits[name].add(int(number))
    if not all(bits.values()):
        raise UsageError("--bits: expected a code length for each data set")
    paths = dict(text.partition("=")[::2] for text in options.path)
    for dataset, path in paths.items():
        if dataset not in bits or not Path(path).exists() or not path:
            raise UsageError(f"--path {dataset}={path}: expected one of {', '.join(bits)}, and a folder that is there")
    return Sweep(
        out=options.out.absolute(),
        datasets=list(bits),
        tables=[table for table in options.tables if set(rows_of(table)) & set(wanted)],
        methods=[name for name in METHODS if name in wanted],
        bits={dataset: sorted(numbers) for dataset, numbers in bits.items()},
        seeds=sorted(set(options.seeds)),
        paths={dataset: str(Path(path).absolute()) for dataset, path in paths.items()},
        keys=options.run,
    )


def print_points(sweep: Sweep, runs: Mapping[Point, Run], pace: Pace, workers: int) -> None:
    """Print every point, and what is left to do."""
    for point in sweep.points():
        state = "done" if point in runs else f"about {duration(pace.seconds(point))}"
        print(f"{state:>16}  {point}")
    left = [point for point in sweep.points() if point not in runs]
    seconds = sum(map(pace.seconds, left)) / workers
    print(f"{len(runs)} of {len(runs) + len(left)} runs are there; about {duration(seconds)} for the rest")


def sit(sweep: Sweep, runs: dict[Point, Run], pace: Pace, options: argparse.Namespace) -> Sitting:
    """Run points, alone in the folder; add them to ``runs``."""
    sweep.out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(sweep.out / ".sitting.lock", timeout=0):
            sitting = Sitting(sweep, runs, pace, options.workers, 60 * options.minutes)
            sitting.run()
    except Timeout:
        raise UsageError(f"another sitting is under way in {sweep.out}: expected its end, or another --out") from None
    return sitting


def main(arguments: list[str] | None = None) -> int:
    """Run the script; return its exit code."""
    options = parse(arguments)
    try:
        sweep = sweep_of(options)
        runs = {point: run for point in sweep.points() if (run := sweep.find(point)) is not None}
        pace = Pace()
        for point, run in runs.items():
            pace.add(point, run)
        if options.list:
            print_points(sweep, runs, pace, options.workers)
            return 0
        sitting = sit(sweep, runs, pace, options)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    for what, points in (("refused", sitting.refusals), ("failed", sitting.failures)):
        for point, reason in points.items():
            print(f"{point} {what}: {reason}", file=sys.stderr)
    for table in sweep.tables:
        print(f"lshbench report {sweep.out} --table {table}")
    left = len(sweep.points()) - len(runs) - len(sitting.refusals)
    if left:
        print(f"{left} of {len(sweep.points())} runs are missing: the same command goes on")
    if sitting.failures:
        return 1
    return WRONG_USE if sitting.refusals and not runs else 0


if __name__ == "__main__":
    sys.exit(main())
