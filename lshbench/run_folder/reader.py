"""Reading the folders of finished runs."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from lshbench.errors import UsageError
from lshbench.files import EXPANDED, RATIO, check_regular, fits, open_npy, read_npz, read_small
from lshbench.metrics.curves import Curves
from lshbench.run_folder.contents import (
    CONFIG,
    CURVES,
    HYDRA,
    LOCK,
    MANIFEST,
    METRICS,
    MODEL_DESCRIPTION,
    MULTIRUN,
    NEIGHBORS,
    PER_QUERY,
    TRADEOFF,
    TRAINING,
)
from lshbench.run_folder.manifest import Manifest
from lshbench.run_folder.metrics import SCHEMA_VERSION, RunMetrics
from lshbench.text import visible

if TYPE_CHECKING:
    import pyarrow

log = logging.getLogger(__name__)


MOST_DIMENSIONS = 1 << 24
"""Width of features at most."""

LARGEST_CONFIG = 4 << 20
"""Bytes of a run's configuration at most."""


@dataclass(frozen=True)
class Run:
    """A run's result and access to its files, each of which is checked against the manifest when it is first used.

    Attributes:
        path: the folder.
        metrics: what ``metrics.json`` holds, or will hold.
        manifest: sizes and checksums of its files; None for a run under way, or of an earlier version.
    """

    path: Path
    metrics: RunMetrics
    manifest: Manifest | None = None
    _checked: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a finished run by its folder, or by its ``metrics.json``.

        Checks that every file of the manifest is there with its size; contents are checked where they are used.

        Raises:
            UsageError: there is no finished run, it is damaged, or another version wrote it.
        """
        path = Path(path)
        folder = path.parent if path.name == METRICS else path
        file = folder / METRICS
        if not os.path.lexists(file):
            what = "is no folder" if not folder.is_dir() else f"holds no finished run (there is no {METRICS})"
            raise UsageError(f"{folder} {what}: expected the folder of a run")
        with damage(folder / MANIFEST):
            manifest = Manifest.read(folder)
        if manifest is not None:
            _check_sizes(folder, manifest)
        with damage(file):
            if manifest is not None:
                manifest.check(folder, METRICS)
            check_regular(file, folder)
            content = _shown(json.loads(read_small(file), parse_constant=_refuse_constant))
            version = content["schema_version"]
        if version != SCHEMA_VERSION:
            raise UsageError(
                f"{file} has schema_version={version!r}: expected {SCHEMA_VERSION}; another lshbench wrote it"
            )
        metrics = RunMetrics.from_json(content, file)
        if not (1 <= metrics.dataset.dim <= MOST_DIMENSIONS and metrics.dataset.gallery >= 1):
            raise UsageError(f"{file} is damaged: {metrics.dataset.gallery} items of {metrics.dataset.dim} numbers")
        return cls(folder, metrics, manifest)

    def has(self, name: str) -> bool:
        """Return whether a file exists; ``training.json``, for one, does not where nothing was trained."""
        return name in self.manifest.entries if self.manifest is not None else os.path.lexists(self.path / name)

    def file(self, name: str) -> Path:
        """Return the path of one of the run's files, checked: it is a file, and what it was when the run finished.

        Raises:
            UsageError: it is not there, or damaged.
        """
        path = self.path / name
        if not self.has(name):
            raise UsageError(f"{self.path} holds no {name}: expected a whole run folder")
        if name not in self._checked:
            with damage(path):
                check_regular(path, self.path)
                if self.manifest is not None:
                    self.manifest.check(self.path, name)
            self._checked.add(name)
        return path

    def files(self, folder: str) -> list[Path]:
        """Return the files in one of the run's folders, such as ``index``, each checked as :meth:`file` does."""
        if self.manifest is not None:
            names = [name for name in self.manifest.entries if name.startswith(f"{folder}/")]
        else:
            names = sorted(f"{folder}/{each.name}" for each in (self.path / folder).glob("*"))
        return [self.file(name) for name in names]

    def is_sealed_by(self, key: bytes | None) -> bool:
        """Return whether whoever holds a key made this run (:mod:`lshbench.run_folder.manifest`)."""
        with damage(self.path / MANIFEST):
            return self.manifest is not None and self.manifest.is_sealed_by(self.path, key)

    def config(self) -> dict[str, Any]:
        """Return the resolved configuration."""
        path = self.file(CONFIG)
        with damage(path):
            config = _plain_yaml(read_small(path, LARGEST_CONFIG))
            if not isinstance(config, dict):
                raise ValueError("it holds no keys and values")
            return config

    def array(self, name: str, dtype: Any = None, shape: tuple[int | None, ...] | None = None) -> np.ndarray:
        """Return one array, such as ``codes/gallery.npy``, memory-mapped.

        Args:
            name: of the file.
            dtype: what it has to be, such as ``np.int64``; None for any.
            shape: what it has to be, None for any extent.

        Raises:
            UsageError: it is not there, damaged, or of another type or shape.
        """
        path = self.file(name)
        with damage(path):
            found = open_npy(path)
            if dtype is not None and found.dtype != np.dtype(dtype):
                raise ValueError(f"an array of {found.dtype}, expected {np.dtype(dtype)}")
            if shape is not None and not fits(found.shape, shape):
                raise ValueError(f"an array {found.shape}, expected {shape}")
            return found

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """Return the arrays of a file such as ``curves.npz``, by name."""
        path = self.file(name)
        with damage(path):
            return read_npz(path)

    def neighbors(self) -> tuple[np.ndarray, np.ndarray]:
        """Return ids, int64 ``(q, k)``, -1 where fewer were found, and distances, float32 ``(q, k)``."""
        stored = self.arrays(NEIGHBORS)
        with damage(self.path / NEIGHBORS):
            return stored["ids"], stored["distances"]

    def curves(self) -> Curves:
        """Return the curves that the plots draw."""
        stored = self.arrays(CURVES)
        with damage(self.path / CURVES):
            return Curves(**{one.name: stored[one.name] for one in fields(Curves) if one.name in stored})

    def per_query(self, columns: Sequence[str] | None = None) -> pyarrow.Table:
        """Return the table of figures with one row a query, or some of its columns."""
        return self._table(PER_QUERY, columns)

    def per_query_columns(self) -> list[str]:
        """Return the names of that table's columns."""
        from pyarrow.parquet import ParquetFile

        path = self.file(PER_QUERY)
        with damage(path), ParquetFile(path) as file:
            return file.schema_arrow.names

    def tradeoff(self) -> dict[str, list[Any]]:
        """Return columns with one row for each query setting of the index; None where a figure is not known."""
        return self._table(TRADEOFF).to_pydict()

    def training(self) -> dict[str, Any]:
        """Return ``chosen_epoch`` and ``epochs`` (``epoch``, ``loss``, ``validation``, ``terms`` each)."""
        return self.json(TRAINING)

    def model(self) -> dict[str, Any]:
        """Return the settings of the run's parts: ``method``, ``pca``, ``backbone`` and ``index``."""
        described = self.json(MODEL_DESCRIPTION)
        for group in ("method", "pca", "index"):
            if not isinstance(described.get(group), dict):
                raise UsageError(f"{self.path / MODEL_DESCRIPTION} is damaged: it has no {group}")
        return described

    def json(self, name: str) -> dict[str, Any]:
        """Return what a JSON file holds, such as ``training.json``."""
        path = self.file(name)
        with damage(path):
            content = json.loads(read_small(path), parse_constant=_refuse_constant)
            if not isinstance(content, dict):
                raise ValueError("it holds no names and values")
            return content

    def _table(self, name: str, columns: Sequence[str] | None = None) -> pyarrow.Table:
        from pyarrow.parquet import ParquetFile

        path = self.file(name)
        # pyarrow.parquet.read_table imports pandas, which takes half a second.
        with damage(path), ParquetFile(path) as file:
            _check_expanded(file.metadata, path.stat().st_size)
            return file.read(None if columns is None else list(columns))


@contextmanager
def damage(path: Path) -> Iterator[None]:
    """Say of any error that a file of a run is damaged: readers of formats raise anything.

    Raises:
        UsageError: names the file.
    """
    try:
        yield
    except UsageError:
        raise
    except PermissionError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from error
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UsageError(f"{path} is damaged: {visible(reason) or type(error).__name__}") from error


def _check_sizes(folder: Path, manifest: Manifest) -> None:
    for name in manifest.entries:
        with damage(folder / name):
            try:
                manifest.check_size(folder, name)
            except FileNotFoundError:
                raise UsageError(f"{folder} holds no {name}: expected a whole run folder") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name}, where numbers of a run are finite")


def _shown(value: Any) -> Any:
    """Return what JSON held with all its text fit to be shown (:func:`lshbench.text.visible`)."""
    if isinstance(value, dict):
        return {visible(key): _shown(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shown(item) for item in value]
    return visible(value) if isinstance(value, str) else value


def _plain_yaml(content: bytes) -> Any:
    """Return what YAML holds that has no aliases: with them a few lines stand for more than any memory holds."""
    import yaml

    # Ten times as fast as the loader in Python; wheels of PyYAML have it.
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    if b"*" in content and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(content, Loader=loader)):
        raise ValueError("it has aliases (*name)")
    return yaml.load(content, Loader=loader)


def _check_expanded(metadata: Any, size: int) -> None:
    """Refuse a table whose values, eight bytes each, would take far more than its file."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    values = sum(group.column(j).num_values for group in groups for j in range(group.num_columns))
    if 8 * max(values, metadata.num_rows) > max(EXPANDED, RATIO * size):
        raise ValueError(f"a table of {values:,} values")


def finished_runs(root: Path) -> Iterator[Run]:
    """Yield the finished runs below a folder, in the order of their paths; warn of those that can't be read."""
    for folder in finished_folders(root):
        try:
            run = Run.open(folder)
        except UsageError as error:
            log.warning("left out: %s", error)
        else:
            yield run


def find_finished(root: Path, run_id: str) -> Path | None:
    """Return the folder of a finished run with this identity below a folder, or None."""
    written = f'"{run_id}"'.encode()
    for folder in finished_folders(root):
        with suppress(OSError, ValueError, UsageError):
            # Most runs are told apart without parsing them.
            if written in read_small(folder / METRICS) and Run.open(folder).metrics.run_id == run_id:
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


def finished_folders(root: Path) -> Iterator[Path]:
    """Yield the folders of finished runs below a folder, in the order of their paths."""
    return (folder for folder, finished in run_folders(root) if finished)


def metrics_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of ``metrics.json``."""
    return json.loads(resources.files("lshbench").joinpath("schema/metrics.schema.json").read_bytes())
