"""The documentation's tables: methods x bits x seeds x data sets, in as many sittings as one likes.

    python scripts/bench_methods.py                                  # CIFAR-10 and CIFAR-100 from the Hub
    python scripts/bench_methods.py --path cifar10_images=DIR --path cifar100_images=DIR --minutes 50
    python scripts/bench_methods.py --bits 16 32 64 cifar100_images=128 --readme README.md
    python scripts/bench_methods.py --only-table                     # of the runs that are there

Every point is one `lshbench run` in a process and a folder of its own below --out.  A point whose folder is finished
is not run again, and one that was killed goes on from its checkpoint; after a change of code or of a method's defaults,
take another --out.  The tables (table.md and table.csv in --out) have the mean and the standard deviation over seeds; a
column's winner is bold where the paired difference to every other method of its table is significant.
"""

from __future__ import annotations

import argparse
import csv
import io
import multiprocessing
import os
import re
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from lshbench import __version__
from lshbench.compare import Repeat, paired_values, read_repeat
from lshbench.errors import UsageError
from lshbench.metrics.significance import holm, paired_permutation_test
from lshbench.progress import duration
from lshbench.run_folder import Run, atomic_file
from lshbench.threads import available_cores

KEYS = ("threads=1", "evaluation.plots=false", "evaluation.definitions=false", "reference.time=false")
"""Of every run: one thread each, and nothing that the tables don't show."""

NOT_COMPARED = frozenset({"cache", "dataset.path", "device", "threads"})
"""Keys that may change from one sitting to the next."""

PRELOADED = [
    "datasets",
    "faiss",
    "lshbench.assemble",
    "lshbench.commands.run",
    "lshbench.experiment",
    "lshbench.summary",
    "pyarrow.parquet",
    "torch._dynamo",
]
"""What the runs' processes are forked with: importing it takes seconds.  Optimizers import the last."""

COLUMNS = {"mAP": "AP", "P@10": "P@10", "P@50": "P@50"}
"""Figures of the tables, and their columns in ``per_query.parquet``."""

LEVEL = 0.05
"""A winner's adjusted p-values are below it."""

BEGIN, END = "<!-- table:begin -->", "<!-- table:end -->"


@dataclass(frozen=True)
class Method:
    """A row of the tables.

    Attributes:
        supervision: ``labels`` or ``none``.
        seconds: about what a run takes of a core, on CIFAR-10's images: only estimates of time rest on it.
        keys: what chooses it.
    """

    supervision: str
    seconds: float
    keys: tuple[str, ...]


METHODS = {
    "fourier": Method("labels", 90, ("method=fourier",)),
    "neural": Method("labels", 53, ("method=neural",)),
    "orthohash": Method("labels", 37, ("method=orthohash",)),
    "csq": Method("labels", 37, ("method=csq",)),
    "dpn": Method("labels", 37, ("method=dpn",)),
    "greedyhash": Method("labels", 37, ("method=greedyhash",)),
    "hashnet": Method("labels", 37, ("method=hashnet",)),
    "fourier-none": Method("none", 90, ("method=fourier", "method.supervision=none")),
    "neural-none": Method("none", 53, ("method=neural", "method.supervision=none")),
    "cibhash": Method("none", 45, ("method=cibhash",)),
    "bihalf": Method("none", 37, ("method=bihalf",)),
    "spectral": Method("none", 8, ("method=spectral",)),
    "itq": Method("none", 9, ("method=itq",)),
    "pca_rotation": Method("none", 8, ("method=pca_rotation",)),
    "pca_sign": Method("none", 8, ("method=pca_sign",)),
    "random_projection": Method("none", 5, ("method=random_projection",)),
}
"""In the order in which they are run: the most wanted and longest first, so that short runs fill the end."""


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
        datasets, methods: names, in the tables' order.
        bits: code lengths of each data set, ascending.
        seeds: of each point.
        paths: local copies of data sets, by name.
        keys: further keys of every run.
    """

    out: Path
    datasets: list[str]
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
            *METHODS[point.method].keys,
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
        if not (folder / "metrics.json").exists():
            return None
        run = Run.open(folder)
        recorded, asked = settings(run.metrics["command"][2:]), settings(self.overrides(point))
        if recorded != asked:
            raise UsageError(
                f"{folder} was made with {differing(recorded, asked)}, and {differing(asked, recorded)} is asked "
                "for: expected another --out, or that folder removed"
            )
        if (version := run.metrics["environment"]["lshbench"]) != __version__:
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
    """Estimates of seconds: those of :data:`METHODS`, scaled by what finished runs took."""

    def __init__(self) -> None:
        self._taken = self._expected = 0.0

    def add(self, point: Point, run: Run) -> None:
        """Learn from a finished run."""
        self._taken += run.metrics["time_s"]["total"]
        self._expected += METHODS[point.method].seconds

    def seconds(self, point: Point) -> float:
        """Return what a run is expected to take."""
        return METHODS[point.method].seconds * (self._taken / self._expected if self._expected else 1.0)


class Sitting:
    """Runs points in worker processes until all are done or the time is over.

    Attributes:
        runs: the finished ones.
        failures: why a point failed.
    """

    def __init__(self, sweep: Sweep, runs: dict[Point, Run], pace: Pace, workers: int, seconds: float) -> None:
        self.runs = runs
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
            self.failures[point] = why(process.exitcode, log)
            result = f"FAILED: {self.failures[point]}"
        else:
            log.unlink(missing_ok=True)
            self.runs[point] = run
            self._pace.add(point, run)
            figures = run.metrics
            result = f"mAP {short(figures['metrics']['mAP'])} in {duration(figures['time_s']['total'])}"
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


# --- Tables ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One method's runs at one code length on one data set, by seed.

    Attributes:
        name: the method's.
        runs: of the seeds that are there.
        complete: whether all seeds are.
    """

    name: str
    runs: list[Run]
    complete: bool

    def values(self, metric: str) -> list[float]:
        """Return a metric of each run."""
        return [run.metrics["metrics"][metric] for run in self.runs]


@dataclass(frozen=True)
class Column:
    """The methods of one supervision at one code length on one data set."""

    bits: int
    cells: dict[str, Cell]
    winners: dict[str, str | None]


@dataclass(frozen=True)
class Candidate:
    """A configuration's runs, as :func:`lshbench.compare.paired_values` takes them."""

    name: str
    repeats: list[Repeat]


def find_winner(cells: Sequence[Cell], metric: str) -> str | None:
    """Return the method that is significantly better than each of the others, or None.

    Its differences to the others are tested query by query, seeds averaged, and the p-values corrected for
    the number of others (Holm).  None, too, while runs are missing, or where there are no others.
    """
    if len(cells) < 2 or not all(cell.complete for cell in cells):
        return None
    candidates = [Candidate(cell.name, [read_repeat(run, COLUMNS[metric]) for run in cell.runs]) for cell in cells]
    best = max(candidates, key=lambda one: np.mean([repeat.values.mean() for repeat in one.repeats]))
    tests = [paired_permutation_test(*paired_values(best, other)[:2]) for other in candidates if other is not best]
    significant = holm(np.array([test.p_value for test in tests])) < LEVEL
    return best.name if significant.all() else None


def columns_of(sweep: Sweep, runs: Mapping[Point, Run], dataset: str, supervision: str) -> list[Column]:
    """Return a table's columns, with their winners."""
    columns = []
    for bits in sweep.bits[dataset]:
        cells = {}
        for method in (name for name in sweep.methods if METHODS[name].supervision == supervision):
            found = [runs.get(Point(dataset, method, bits, seed)) for seed in sweep.seeds]
            cells[method] = Cell(method, [run for run in found if run is not None], None not in found)
        winners = {metric: find_winner(list(cells.values()), metric) for metric in COLUMNS}
        columns.append(Column(bits, cells, winners))
    return columns


def reference_of(columns: Sequence[Column]) -> Cell | None:
    """Return exact cosine ranking as a cell, a run for each seed, or None where no run has it."""
    by_seed = {run.metrics["seed"]: run for column in columns for cell in column.cells.values() for run in cell.runs}
    found = [run for run in by_seed.values() if run.metrics["reference"]["cosine"]]
    if not found:
        return None
    return Cell("exact cosine, no code", [Run(run.path, _as_metrics(run)) for run in found], True)


def _as_metrics(run: Run) -> dict:
    return {"metrics": run.metrics["reference"]["cosine"]}


def short(value: float) -> str:
    """Return .8352 for 0.8352."""
    return f"{value:.4f}".removeprefix("0")


def spread(values: Sequence[float]) -> float:
    """Return the standard deviation over seeds, 0 of one."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def figure(cell: Cell, metric: str, *, bold: bool = False) -> str:
    """Return a cell's mean and spread; a number in brackets is that of its seeds, if some are missing."""
    values = cell.values(metric)
    if not values:
        return "-"
    text = short(statistics.mean(values))
    if spread(values):
        text += f" ± {short(spread(values))}"
    text = f"**{text}**" if bold else text
    return text if cell.complete else f"{text} ({len(values)})"


def markdown_table(columns: Sequence[Column], metrics: Sequence[str], *, fit: bool) -> str:
    """Return a row for exact cosine and one for each method; columns are metrics x bits, and seconds of fitting."""
    headings = ["method", *(f"{metric}, {column.bits} bits" for metric in metrics for column in columns)]
    headings += ["fit, s"] if fit else []
    rows = [headings, ["---"] * len(headings)]
    if (reference := reference_of(columns)) is not None:
        figures = [figure(reference, metric) for metric in metrics for _ in columns]
        rows.append([reference.name, *figures, *(["-"] if fit else [])])
    for method in columns[0].cells:
        cells = [column.cells[method] for column in columns]
        row = [label(cells)]
        for metric in metrics:
            row += [figure(column.cells[method], metric, bold=column.winners[metric] == method) for column in columns]
        rows.append([*row, *([fit_seconds(cells)] if fit else [])])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def label(cells: Sequence[Cell]) -> str:
    """Return a row's name; a leak is said wherever figures are shown."""
    leak = any(run.metrics["protocol"].get("leak", False) for cell in cells for run in cell.runs)
    return f"`{cells[0].name.removesuffix('-none')}`{' (leak)' if leak else ''}"


def fit_seconds(cells: Sequence[Cell]) -> str:
    """Return the mean time of fitting."""
    seconds = [run.metrics["time_s"]["fit"] for cell in cells for run in cell.runs]
    return f"{statistics.mean(seconds):.1f}" if seconds else "-"


TITLES = {"labels": "Trained with labels", "none": "Trained without labels"}

NOTE = (
    "Mean over seeds {seeds}, ± their standard deviation; mAP is the expected value over the order of ties, of all "
    "relevant items. **Bold**: better than every other method of its table, each difference significant at "
    f"{LEVEL} (paired sign-flip tests over queries, seeds averaged; Holm's correction)."
)


def markdown(sweep: Sweep, tables: Mapping[str, Mapping[str, list[Column]]]) -> str:
    """Return all tables as Markdown: mAP first, then P@10, P@50 and seconds of fitting.

    Args:
        sweep: what was asked for.
        tables: columns by data set and supervision.
    """
    parts = [NOTE.format(seeds=", ".join(map(str, sweep.seeds)))]
    for dataset, groups in tables.items():
        shown = {title: groups[supervision] for supervision, title in TITLES.items() if supervision in groups}
        parts.append(f"### {dataset}")
        parts.append(describe([run for columns in shown.values() for run in runs_of(columns)]))
        for title, columns in shown.items():
            parts += [f"{title}:", markdown_table(columns, ["mAP"], fit=False)]
        parts.append("<details><summary>P@10, P@50 and seconds of fitting on one thread</summary>")
        for title, columns in shown.items():
            parts += [f"{title}:", markdown_table(columns, ["P@10", "P@50"], fit=True)]
        parts.append("</details>")
    missing = sum(not cell.complete for groups in tables.values() for cell in cells_of(groups))
    if missing:
        parts.append(
            f"{missing} {'cell lacks' if missing == 1 else 'cells lack'} runs; no winner is marked beside them."
        )
    return "\n\n".join(parts) + "\n"


def describe(runs: Sequence[Run]) -> str:
    """Return what the figures of a data set are of, and on what machine."""
    if not runs:
        return "No run is finished."
    metrics = runs[0].metrics
    data, backbone = metrics["dataset"], metrics["dataset"]["backbone"]
    return (
        f"{data['queries']:,} queries, {data['gallery']:,} in the gallery, {data['classes']} classes; "
        f"{f'{backbone}, ' if backbone else ''}{data['dim']} dims; protocol {metrics['protocol']['name']}; "
        f"{metrics['environment']['cpu']}."
    )


def cells_of(groups: Mapping[str, list[Column]]) -> Iterator[Cell]:
    """Yield the cells of a data set."""
    for columns in groups.values():
        for column in columns:
            yield from column.cells.values()


def runs_of(columns: Sequence[Column]) -> Iterator[Run]:
    """Yield the runs of a table."""
    for column in columns:
        for cell in column.cells.values():
            yield from cell.runs


def csv_text(tables: Mapping[str, Mapping[str, list[Column]]]) -> str:
    """Return all figures, a row for each data set, method and code length."""
    text = io.StringIO()
    names = [name for metric in COLUMNS for name in (metric, f"{metric}_std", f"{metric}_winner")]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["dataset", "supervision", "method", "bits", "seeds", *names, "fit_s"])
    for dataset, groups in tables.items():
        for supervision, columns in groups.items():
            reference = reference_of(columns)
            for column in columns:
                if reference is not None:
                    figures = [part for metric in COLUMNS for part in (*csv_figures(reference, metric), False)]
                    writer.writerow(
                        [dataset, supervision, "exact_cosine", column.bits, len(reference.runs), *figures, ""]
                    )
                for name, cell in column.cells.items():
                    figures = [
                        part
                        for metric in COLUMNS
                        for part in (*csv_figures(cell, metric), column.winners[metric] == name)
                    ]
                    seconds = [run.metrics["time_s"]["fit"] for run in cell.runs]
                    fit = f"{statistics.mean(seconds):.2f}" if seconds else ""
                    writer.writerow([dataset, supervision, name, column.bits, len(cell.runs), *figures, fit])
    return text.getvalue()


def csv_figures(cell: Cell, metric: str) -> tuple[str, str]:
    """Return mean and spread in full digits."""
    values = cell.values(metric)
    return (f"{statistics.mean(values):.6f}", f"{spread(values):.6f}") if values else ("", "")


def fill(readme: Path, text: str) -> None:
    """Put the tables between a document's markers.

    Raises:
        UsageError: it has not exactly one pair of them.
    """
    before = readme.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    after, count = pattern.subn(lambda _: f"{BEGIN}\n{text}{END}", before)
    if count != 1:
        raise UsageError(f"{readme} has {count} places for the tables: expected one {BEGIN} with {END} after it")
    write(readme, after)


def write(path: Path, text: str) -> None:
    """Write a file in one step."""
    with atomic_file(path) as file:
        file.write(text.encode())


def write_tables(sweep: Sweep, runs: Mapping[Point, Run], readme: Path | None) -> None:
    """Write the tables of the runs that are there."""
    supervisions = list(dict.fromkeys(METHODS[method].supervision for method in sweep.methods))
    tables = {
        dataset: {supervision: columns_of(sweep, runs, dataset, supervision) for supervision in supervisions}
        for dataset in sweep.datasets
    }
    text = markdown(sweep, tables)
    write(sweep.out / "table.md", text)
    write(sweep.out / "table.csv", csv_text(tables))
    if readme is not None:
        fill(readme, text)
    print(f"tables of {len(runs)} runs are in {sweep.out / 'table.md'} and {sweep.out / 'table.csv'}")


# --- Command line ------------------------------------------------------------------------------------------------


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("outputs/bench_methods"), help="where the runs go (default: %(default)s)")
    add("--datasets", nargs="+", default=["cifar10_images", "cifar100_images"], metavar="NAME")
    add("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="NAME", help=", ".join(METHODS))
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
    add("--only-table", action="store_true", help="write the tables of what is there, and run nothing")
    add("--readme", type=Path, metavar="FILE", help=f"also put the tables between {BEGIN} and {END} of a document")
    return parser.parse_args(arguments)


def sweep_of(options: argparse.Namespace) -> Sweep:
    """Return what the options ask for, checked.

    Raises:
        UsageError: a value that can't be meant.
    """
    if options.workers < 1:
        raise UsageError(f"--workers {options.workers}: expected at least 1")
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
        methods=[method for method in METHODS if method in options.methods],
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


def sit(sweep: Sweep, runs: dict[Point, Run], pace: Pace, options: argparse.Namespace) -> dict[Point, str]:
    """Run points, alone in the folder; add them to ``runs`` and return failures."""
    sweep.out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(sweep.out / ".sitting.lock", timeout=0):
            sitting = Sitting(sweep, runs, pace, options.workers, 60 * options.minutes)
            sitting.run()
    except Timeout:
        raise UsageError(f"another sitting is under way in {sweep.out}: expected its end, or another --out") from None
    return sitting.failures


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
        failures = {} if options.only_table else sit(sweep, runs, pace, options)
        write_tables(sweep, runs, options.readme)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    for point, reason in failures.items():
        print(f"{point} failed: {reason}", file=sys.stderr)
    left = len(sweep.points()) - len(runs)
    if left:
        print(f"{left} of {len(sweep.points())} runs are missing: the same command goes on")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
