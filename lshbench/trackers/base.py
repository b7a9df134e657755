"""Interface of an experiment tracker, and what all of them are sent of a finished run."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lshbench.errors import UsageError
from lshbench.run_folder import Run
from lshbench.run_folder.contents import CONFIG, LOG, METRICS, PER_QUERY, PLOTS, TRADEOFF, TRAINING
from lshbench.run_folder.keys import flat


class Tracker(ABC):
    """Interface of an experiment tracker.

    A tracker is made before a run starts, so that a missing package or a wrong key is refused early, and is handed the
    run when it is finished.
    """

    @abstractmethod
    def log(self, run: Run) -> None:
        """Send a finished run: its parameters, figures, training curve, plots and files."""


class NoTracker(Tracker):
    """Sends nothing."""

    def log(self, run: Run) -> None:
        """Do nothing."""


def require(package: str, option: str, extra: str) -> None:
    """Refuse a tracker whose package is not installed.

    Raises:
        UsageError: says how to install it.
    """
    if importlib.util.find_spec(package) is None:
        raise UsageError(f"tracker={option}: the package {package} is not installed: pip install 'lshbench[{extra}]'")


def title(run: Run) -> str:
    """Return a run's name: data set, method, bits and seed."""
    metrics = run.metrics
    bits = "" if metrics.method.bits is None else f" {metrics.method.bits} bits"
    return f"{metrics.dataset.name} {metrics.searched}{bits} seed {metrics.seed}"


def parameters(run: Run) -> dict[str, Any]:
    """Return a run's configuration by dotted keys, with what ``auto`` came to, and its identities."""
    metrics = run.metrics
    config = run.config()
    config["method"] = {**config["method"], **metrics.method.params}
    found = {key: value for key, value in flat(config) if not key.endswith("_target_") and value != {}}
    return found | {
        "run_id": metrics.run_id,
        "configuration_id": metrics.configuration_id,
        "supervision": metrics.method.supervision,
        "data": metrics.dataset.fingerprint,
        "command": " ".join(metrics.command),
    }


def figures(run: Run) -> dict[str, float]:
    """Return a run's figures that are numbers, by keys such as ``metrics/mAP`` and ``search/qps``.

    ``@`` becomes ``_at_``, as not every tracker takes it.
    """
    content = run.metrics.to_json()
    kept = ("metrics", "ties", "definitions", "reference", "search", "codes", "time_s", "memory")
    found = flat({group: content[group] for group in kept}, "/")
    return {
        name.replace("@", "_at_"): float(value)
        for name, value in found
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def epochs(run: Run) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield each epoch of the training with its figures, such as ``training/loss``; nothing without training."""
    if not run.has(TRAINING):
        return
    for epoch in run.training()["epochs"]:
        named = flat({"training": {key: value for key, value in epoch.items() if key != "epoch"}}, "/")
        yield epoch["epoch"], {name: float(value) for name, value in named if isinstance(value, int | float)}


def precision_at_k(run: Run) -> Iterator[tuple[int, float]]:
    """Yield ranks with the mean precision at them."""
    curves = run.curves()
    yield from zip(curves.k.tolist(), curves.precision_at_k.tolist(), strict=True)


def pictures(run: Run) -> list[Path]:
    """Return the paths of a run's plots."""
    return sorted((run.path / PLOTS).glob("*.png"))


def files(run: Run) -> list[Path]:
    """Return the paths of a run's smaller files: result, configuration, tables and log."""
    names = (METRICS, CONFIG, PER_QUERY, TRADEOFF, TRAINING, LOG)
    return [run.path / name for name in names if (run.path / name).is_file()]
