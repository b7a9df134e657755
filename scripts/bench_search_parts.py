"""What scripts/bench_search.py measures with: data of finished runs, engines in their settings, times by turns."""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lshbench.index.buckets import BucketsIndex
from lshbench.run_folder import Run
from lshbench.runtime.progress import silent
from lshbench.search.reopen import located, open_inputs
from lshbench.system import System
from lshbench.types import Encoded, Features, Side

K = 10
SINGLE = 200
"""Queries timed alone."""


# Data


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    quick: bool
    repeats: int
    threads: int
    runs: Path
    dataset: str
    keys: list[str]
    sizes: list[int]
    output: Path | None


class Opened:
    """A finished run's features, and its method as it was fitted."""

    def __init__(self, folder: Path) -> None:
        run = Run.open(folder)
        inputs, data = open_inputs(run, located(run, "cpu"), silent)
        roles = inputs.load(data, silent)
        self.gallery, self.queries = roles.gallery, roles.queries
        self.system = System.open(run, lambda: roles.gallery.x)

    def encode(self, items: Features, side: Side, rows: slice = slice(None)) -> Encoded:
        """Return items as an index takes them, queries with their projections."""
        return self.system.encode(items.x[rows], side, projections=side == "query")


def opened(options: Options, name: str, keys: list[str]) -> Opened:
    """Return a run below --runs, made if it is not there."""
    folder = options.runs / options.dataset / name
    if not (folder / "metrics.json").exists():
        command = [sys.executable, "-m", "lshbench", "run", f"dataset={options.dataset}", f"hydra.run.dir={folder}"]
        command += ["evaluation.plots=false", "evaluation.definitions=false", *keys, *options.keys]
        print(" ".join(command[3:]), flush=True)
        subprocess.run(command, check=True, env=os.environ, stdout=subprocess.DEVNULL)
    return Opened(folder)


# Measuring


@dataclass
class Setting:
    """One engine in one setting.

    Attributes:
        group: settings of one name here differ by what is probed alone, and stand in ascending order.
        prepare: puts the engine into the setting; quick.
        batch: searches all queries.
        alone: searches one query.
        recall: by what it is a recall of.
        candidates: compared with a query, where the engine tells.
    """

    name: str
    group: str
    prepare: Callable[[], object]
    batch: Callable[[], object]
    alone: Callable[[int], object]
    bytes_per_item: float | None = None
    recall: dict[str, float] = field(default_factory=dict)
    candidates: float | None = None
    single_us: float = math.inf
    batch_us: float = math.inf


def timed(setting: Setting, queries: int, singles: int) -> tuple[float, float]:
    """Return microseconds of a query alone (median) and of one in a batch; one warm-up each."""
    setting.prepare()
    setting.batch()
    start = time.perf_counter()
    setting.batch()
    together = (time.perf_counter() - start) / queries
    alone = []
    for row in range(min(3, singles)):
        setting.alone(row)
    for row in range(singles):
        start = time.perf_counter()
        setting.alone(row)
        alone.append(time.perf_counter() - start)
    return 1e6 * statistics.median(alone), 1e6 * together


def by_turns(settings: list[Setting], queries: int, singles: int, repeats: int) -> list[tuple[float, float]]:
    """Return the medians of each setting's times over repeats in which they take turns."""
    times = [[timed(setting, queries, singles) for setting in settings] for _ in range(repeats)]
    return [tuple(statistics.median(values) for values in zip(*own, strict=True)) for own in zip(*times, strict=True)]


def fastest(settings: list[Setting], truth: str, target: float, what: str, count: int = 1) -> list[Setting]:
    """Return the settings that take least among those that reach a recall, quickest first."""
    enough = [setting for setting in settings if setting.recall[truth] >= target]
    return sorted(enough, key=lambda setting: getattr(setting, what))[:count]


def our_settings(gallery: Encoded, queries: Encoded, label: str, grid: dict[str, Any], k: int = K) -> list[Setting]:
    """Return a built index at each of its points."""
    index = BucketsIndex(**grid).build(gallery)
    rows = [queries[row : row + 1] for row in range(min(SINGLE, len(queries)))]
    settings = []
    for point in index.points():
        index.set_point(point)
        group = f"{label}{grid['bits_per_table']} bits, {point['tables']} tables"
        setting = Setting(
            f"{group}, {point['probes']} probes",
            group,
            lambda point=point: index.set_point(point),
            lambda: index.search(queries, k),
            lambda row: index.search(rows[row], k),
            index.bytes / len(gallery),
        )
        settings.append(setting)
    return settings


def union(index: BucketsIndex, queries: Encoded, wanted: np.ndarray) -> tuple[float, float]:
    """Return the share of the wanted rows (int ``(q, k)``) that are candidates, and how many candidates a query has."""
    hits, total = 0, 0
    seen = np.zeros(len(index), bool)
    for start, stop, offsets, rows, _ in index.candidates(queries):
        total += len(rows)
        for query in range(start, stop):
            own = rows[offsets[query - start] : offsets[query - start + 1]]
            seen[own] = True
            hits += int(seen[wanted[query]].sum())
            seen[own] = False
    return hits / wanted.size, total / len(queries)


def measured(
    settings: list[Setting], recall: Callable[[Any], dict[str, float]], targets: Mapping[str, Sequence[float]]
) -> list[Setting]:
    """Return the settings with their recalls and candidates, of a group up to the first that reaches every target."""
    enough: set[str] = set()
    tried = []
    for setting in settings:
        if setting.group in enough:
            continue
        setting.prepare()
        found: Any = setting.batch()
        setting.recall = recall(found)
        if hasattr(found, "candidates"):
            setting.candidates = float(found.candidates.mean())
        if all(setting.recall[truth] >= max(values) for truth, values in targets.items()):
            enough.add(setting.group)
        tried.append(setting)
    return tried


def time_all(settings: list[Setting], targets: Mapping[str, Sequence[float]], queries: int, singles: int) -> None:
    """Fill in times where some target is reached."""
    for setting in settings:
        if any(setting.recall[truth] >= min(values) for truth, values in targets.items()):
            setting.single_us, setting.batch_us = timed(setting, queries, singles)
