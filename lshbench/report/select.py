"""Which runs a report is of: found below folders, each result once, and chosen by their settings."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lshbench.errors import UsageError
from lshbench.run_folder import Run
from lshbench.run_folder.contents import CONFIG, METRICS
from lshbench.run_folder.keys import flat
from lshbench.run_folder.metrics import SHARED_LABEL
from lshbench.run_folder.reader import run_folders
from lshbench.text import visible

SHORT = {
    "dataset": "dataset.name",
    "backbone": "dataset.backbone",
    "protocol": "protocol.name",
    "relevance": "relevance.name",
    "method": "method.name",
    "bits": "method.bits",
    "index": "search.index",
}
"""Names that stand for a key of ``metrics.json``; ``supervision`` is what :func:`supervision_of` returns."""


@dataclass(frozen=True)
class Repetition:
    """A run whose ``run_id`` another one has: the same result, shown once.

    Attributes:
        path: the folder that is left out.
        shown: the folder that is shown.
        differs: whether their figures differ, which equal runs should not.
    """

    path: Path
    shown: Path
    differs: bool


@dataclass(frozen=True)
class Selection:
    """Runs found below folders, and what was found but is not among them.

    Attributes:
        runs: finished ones, in the order of folders and paths, each result once.
        damaged: folders of runs that can't be read, with the reason.
        unfinished: folders that a run has begun and not finished.
        repeated: folders whose result another one has.
        filtered: how many finished runs the filters left out.
    """

    runs: tuple[Run, ...]
    damaged: tuple[tuple[Path, str], ...] = ()
    unfinished: tuple[Path, ...] = ()
    repeated: tuple[Repetition, ...] = ()
    filtered: int = 0

    def notes(self) -> list[str]:
        """Return a line for each thing that is left out."""
        lines = [f"damaged, left out: {path}: {reason}" for path, reason in self.damaged]
        lines += [f"not finished, left out: {path}" for path in self.unfinished]
        for one in self.repeated:
            figures = " with OTHER FIGURES" if one.differs else ""
            lines.append(f"{one.path} repeats {one.shown}{figures} and is left out")
        return lines

    def counts(self) -> str:
        """Return one line that counts the runs and what is left out."""
        parts = [f"{len(self.runs)} finished run{'' if len(self.runs) == 1 else 's'}"]
        left_out = {
            "repeated": len(self.repeated),
            "damaged": len(self.damaged),
            "not finished": len(self.unfinished),
            "left out by filters": self.filtered,
        }
        parts += [f"{count} {name}" for name, count in left_out.items() if count]
        return ", ".join(parts)


def find(folders: Sequence[Path]) -> Selection:
    """Return the runs in and below folders.

    Raises:
        UsageError: a folder is not there, or holds no finished run.
    """
    runs: dict[Path, Run] = {}
    damaged: dict[Path, str] = {}
    unfinished: dict[Path, None] = {}
    for folder in folders:
        folder = folder.parent if folder.name == METRICS and folder.is_file() else folder
        if not folder.is_dir():
            raise UsageError(f"{folder} is no folder: expected a run, or a folder of runs")
        before = len(runs)
        known = {path.resolve() for path in runs}
        repeated_folder = False
        for path, finished in run_folders(folder):
            if path.resolve() in known:
                repeated_folder = True
            elif finished:
                try:
                    runs[path] = Run.open(path)
                except UsageError as error:
                    damaged[path] = str(error)
            else:
                unfinished[path] = None
        if len(runs) == before and not repeated_folder:
            others = [f"{len(damaged)} damaged"] * bool(damaged) + [f"{len(unfinished)} not finished"] * bool(
                unfinished
            )
            there = f"; there are {' and '.join(others)}" if others else ""
            raise UsageError(f"{folder} holds no finished run (no {METRICS} in it or below it that can be read){there}")
    return once(list(runs.values()), tuple(damaged.items()), tuple(unfinished))


def once(
    runs: Sequence[Run], damaged: tuple[tuple[Path, str], ...] = (), unfinished: tuple[Path, ...] = ()
) -> Selection:
    """Return each result once: of runs with the same ``run_id`` the first, and which others repeat it."""
    results: dict[str, Run] = {}
    repeated = []
    for run in runs:
        first = results.setdefault(run.metrics.run_id, run)
        if first is not run:
            repeated.append(Repetition(run.path, first.path, run.metrics.metrics != first.metrics.metrics))
    return Selection(tuple(results.values()), damaged, unfinished, tuple(repeated))


def supervision_of(run: Run) -> str:
    """Return ``labels`` or ``none``, or ``features`` where these alone are searched, without a method."""
    return "features" if run.metrics.features_alone else run.metrics.method.supervision


class Settings:
    """Values of one run by dotted keys: of ``metrics.json`` first, then of its configuration, read when needed.

    What only its command knows comes last: options that stand for many keys, such as ``experiment``.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._metrics: dict[str, Any] | None = None
        self._config: dict[str, Any] | None = None

    def get(self, key: str) -> tuple[bool, Any]:
        """Return whether the run has a key, and its value."""
        if key == "supervision":
            return True, supervision_of(self.run)
        key = SHORT.get(key, key)
        metrics = self.metrics()
        if key in metrics:
            return True, metrics[key]
        config = self.config()
        if key in config:
            return True, config[key]
        command = dict(word.split("=", 1) for word in self.run.metrics.command if "=" in word)
        return key in command, command.get(key)

    def metrics(self) -> dict[str, Any]:
        """Return the values of ``metrics.json`` by dotted keys."""
        if self._metrics is None:
            self._metrics = dict(flat(self.run.metrics.to_json()))
        return self._metrics

    def config(self) -> dict[str, Any]:
        """Return the values of ``config.yaml`` by dotted keys; none where there is no such file."""
        if self._config is None:
            self._config = dict(flat(self.run.config())) if self.run.has(CONFIG) else {}
        return self._config


def protocol_of(settings: Settings) -> str:
    """Return the protocol, with what is relevant where that isn't a shared label, and how many items were taken.

    Only runs in which it is equal compare: with fewer items in the gallery, any code has better figures.
    """
    metrics = settings.run.metrics
    said = [metrics.protocol.name]
    if metrics.relevance is not None and metrics.relevance.rule != SHARED_LABEL:
        said.append(f"relevant: {metrics.relevance.rule}")
    for key, items in (("dataset.max_gallery", "gallery items"), ("dataset.max_queries", "queries")):
        most = settings.get(key)[1]
        if isinstance(most, int):
            said.append(f"at most {most:,} {items}")
    return ", ".join(said)


def parse_where(conditions: Sequence[str]) -> dict[str, list[str]]:
    """Return the wanted values of each key of ``key=value`` or ``key=value,value``; a key may come several times.

    Raises:
        UsageError: there is no ``=``.
    """
    wanted: dict[str, list[str]] = {}
    for condition in conditions:
        key, equals, values = condition.partition("=")
        if not equals or not key:
            raise UsageError(f"--where {condition}: expected key=value, such as method=itq or bits=16,32")
        wanted.setdefault(key, []).extend(values.split(","))
    return wanted


def where(selection: Selection, conditions: Sequence[str]) -> Selection:
    """Return the runs that have one of the wanted values for every key.

    Raises:
        UsageError: no run has a key, or none has such values.
    """
    runs = selection.runs
    settings = [Settings(run) for run in runs]
    for key, values in parse_where(conditions).items():
        found = [one.get(key) for one in settings]
        check_key("--where", key, settings, found)
        kept = [
            one
            for one, (has, value) in zip(settings, found, strict=True)
            if has and any(equal(value, wanted) for wanted in values)
        ]
        if not kept:
            there = sorted({shown(value) for has, value in found if has})
            listed = ", ".join(there[:12]) + (", ..." if len(there) > 12 else "")
            raise UsageError(f"--where {key}={','.join(values)}: no run has it; there are {listed}")
        settings = kept
    chosen = tuple(one.run for one in settings)
    return Selection(
        chosen,
        selection.damaged,
        selection.unfinished,
        selection.repeated,
        selection.filtered + len(runs) - len(chosen),
    )


def check_key(option: str, key: str, settings: Sequence[Settings], found: Sequence[tuple[bool, Any]]) -> None:
    """Refuse a key that no run has.

    Raises:
        UsageError: with the keys whose names are near.
    """
    if any(has for has, _ in found):
        return
    keys = {*SHORT, "supervision"}
    for one in settings[:50]:
        keys |= {*one.metrics(), *one.config()}
    near = difflib.get_close_matches(key, sorted(keys), 5, 0.6)
    near += [other for other in sorted(keys) if other.rpartition(".")[2] == key and other not in near]
    expected = ", ".join(near) if near else f"{', '.join(SHORT)}, supervision, seed, or a dotted key of config.yaml"
    raise UsageError(f"{option} {key}: no run has such a key; expected one such as {expected}")


def shown(value: object) -> str:
    """Return a value as a user would write it, fit to be shown."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return visible(str(value))


def equal(value: object, wanted: str) -> bool:
    """Return whether a value is the one that a user wrote."""
    if shown(value) == wanted:
        return True
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(wanted) == float(value)
        except ValueError:
            return False
    return False
