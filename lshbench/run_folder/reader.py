"""Reading the folders of finished runs."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from lshbench.errors import UsageError
from lshbench.metrics.curves import Curves
from lshbench.run_folder.contents import (
    CONFIG,
    CURVES,
    HYDRA,
    LOCK,
    METRICS,
    MODEL_DESCRIPTION,
    MULTIRUN,
    NEIGHBORS,
    PER_QUERY,
    TRADEOFF,
    TRAINING,
)
from lshbench.run_folder.metrics import SCHEMA_VERSION, RunMetrics

if TYPE_CHECKING:
    import pyarrow

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A run's result and access to its files.

    Attributes:
        path: the folder.
        metrics: what ``metrics.json`` holds, or will hold.
    """

    path: Path
    metrics: RunMetrics

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a finished run by its folder, or by its ``metrics.json``.

        Raises:
            UsageError: there is no finished run, it is damaged, or another version wrote it.
        """
        path = Path(path)
        folder = path.parent if path.name == METRICS else path
        file = folder / METRICS
        if not file.is_file():
            what = "is no folder" if not folder.is_dir() else f"holds no finished run (there is no {METRICS})"
            raise UsageError(f"{folder} {what}: expected the folder of a run")
        try:
            content = json.loads(file.read_bytes())
            version = content["schema_version"]
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{file} is damaged: {error!r}") from error
        if version != SCHEMA_VERSION:
            raise UsageError(
                f"{file} has schema_version={version!r}: expected {SCHEMA_VERSION}; another lshbench wrote it"
            )
        return cls(folder, RunMetrics.from_json(content, file))

    def has(self, name: str) -> bool:
        """Return whether a file exists; ``training.json``, for one, does not where nothing was trained."""
        return (self.path / name).is_file()

    def config(self) -> dict[str, Any]:
        """Return the resolved configuration."""
        import yaml

        # Ten times as fast as the loader in Python; wheels of PyYAML have it.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        return yaml.load(self._existing(CONFIG).read_bytes(), Loader=loader)

    def array(self, name: str) -> np.ndarray:
        """Return one array, such as ``codes/gallery.npy``, memory-mapped."""
        return np.load(self._existing(name), mmap_mode="r", allow_pickle=False)

    def neighbors(self) -> tuple[np.ndarray, np.ndarray]:
        """Return ids, int64 ``(q, k)``, -1 where fewer were found, and distances, float32 ``(q, k)``."""
        with np.load(self._existing(NEIGHBORS), allow_pickle=False) as stored:
            return stored["ids"], stored["distances"]

    def curves(self) -> Curves:
        """Return the curves that the plots draw."""
        with np.load(self._existing(CURVES), allow_pickle=False) as stored:
            return Curves(**{field.name: stored[field.name] for field in fields(Curves) if field.name in stored})

    def per_query(self, columns: Sequence[str] | None = None) -> pyarrow.Table:
        """Return the table of figures with one row a query, or some of its columns."""
        return self._table(PER_QUERY, columns)

    def per_query_columns(self) -> list[str]:
        """Return the names of that table's columns."""
        from pyarrow.parquet import ParquetFile

        with ParquetFile(self._existing(PER_QUERY)) as file:
            return file.schema_arrow.names

    def tradeoff(self) -> dict[str, list[Any]]:
        """Return columns with one row for each query setting of the index; None where a figure is not known."""
        return self._table(TRADEOFF).to_pydict()

    def training(self) -> dict[str, Any]:
        """Return ``chosen_epoch`` and ``epochs`` (``epoch``, ``loss``, ``validation``, ``terms`` each)."""
        return json.loads(self._existing(TRAINING).read_bytes())

    def model(self) -> dict[str, Any]:
        """Return the settings of the run's parts: ``method``, ``pca``, ``backbone`` and ``index``."""
        return json.loads(self._existing(MODEL_DESCRIPTION).read_bytes())

    def _table(self, name: str, columns: Sequence[str] | None = None) -> pyarrow.Table:
        from pyarrow.parquet import ParquetFile

        # pyarrow.parquet.read_table imports pandas, which takes half a second.
        with ParquetFile(self._existing(name)) as file:
            return file.read(None if columns is None else list(columns))

    def _existing(self, name: str) -> Path:
        if not self.has(name):
            raise UsageError(f"{self.path} holds no {name}")
        return self.path / name


def finished_runs(root: Path) -> Iterator[Run]:
    """Yield the finished runs below a folder, in the order of their paths; warn of those that can't be read."""
    for folder in _finished_folders(root):
        try:
            run = Run.open(folder)
        except UsageError as error:
            log.warning("left out: %s", error)
        else:
            yield run


def find_finished(root: Path, run_id: str) -> Path | None:
    """Return the folder of a finished run with this identity below a folder, or None."""
    written = f'"{run_id}"'.encode()
    for folder in _finished_folders(root):
        with suppress(OSError, UsageError):
            # Most runs are told apart without parsing them.
            if written in (folder / METRICS).read_bytes() and Run.open(folder).metrics.run_id == run_id:
                return folder
    return None


def run_folders(root: Path) -> Iterator[tuple[Path, bool]]:
    """Yield the folders of runs below a folder, in the order of their paths, and whether each is finished."""
    for folder, names, files in os.walk(root):
        if METRICS in files:
            names.clear()
            yield Path(folder), True
        elif LOCK in files or (HYDRA in names and MULTIRUN not in files):
            # Other runs may lie below one that was begun in the folder of them all.
            yield Path(folder), False
        names[:] = sorted(name for name in names if not name.startswith("."))


def _finished_folders(root: Path) -> Iterator[Path]:
    return (folder for folder, finished in run_folders(root) if finished)


def metrics_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of ``metrics.json``."""
    return json.loads(resources.files("lshbench").joinpath("schema/metrics.schema.json").read_bytes())
