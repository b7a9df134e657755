"""Writing the folder of a run."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np
from filelock import FileLock, Timeout

from lshbench.errors import UsageError
from lshbench.metrics.curves import Curves
from lshbench.run_folder.contents import (
    CURVES,
    FOLDERS,
    HYDRA,
    LOCK,
    LOG,
    METRICS,
    NEIGHBORS,
    PER_QUERY,
    TRADEOFF,
    TRAINING,
    finished_files,
    known_files,
)
from lshbench.run_folder.disk import atomic_file, explained, flush
from lshbench.run_folder.manifest import Manifest
from lshbench.run_folder.metrics import RunMetrics
from lshbench.types import Neighbors

if TYPE_CHECKING:
    import pyarrow

log = logging.getLogger(__name__)

HYDRA_FILES = ("config.yaml", "hydra.yaml", "overrides.yaml")


@contextmanager
def computing(output: Path, run_id: str) -> Iterator[None]:
    """Hold the right to compute a run below a folder; wait while another process holds it.

    A process that ends, however it ends, gives it up. The lock lies in ``.computing`` below the folder. A process that
    has waited must look again whether the run is finished.
    """
    path = output / ".computing" / run_id
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("another process computes this run: waiting for it")
            lock.acquire()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


class RunFolder:
    """Writer of a run's folder, which it locks for one run; made by :meth:`claim`, a context manager.

    Names given to the writers are relative to the folder, such as ``codes/gallery.npy``.  A writer that finds
    the disk full raises :class:`lshbench.errors.UsageError`.
    """

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def claim(cls, path: Path) -> Self:
        """Create the folder if need be and lock it for this process, until :meth:`close` or its end.

        What a dead run left is removed: the files that runs write, and none that somebody else put there.
        Hydra's own files and the log stay.

        Raises:
            UsageError: another living run has it, it holds a finished run or files that no run wrote, or it
                can't be made.
        """
        path = Path(path).resolve()
        with explained(path):
            path.mkdir(parents=True, exist_ok=True)
            # A run writes nothing before it has made the lock file: without one, files of these names are a person's.
            if not (path / LOCK).exists() and (foreign := known_files(path)):
                raise UsageError(
                    f"hydra.run.dir={path} holds {foreign[0].relative_to(path)}, which no run of lshbench "
                    "left there: expected a new or an empty folder"
                )
            lock = FileLock(path / LOCK, timeout=0, thread_local=False)
            try:
                lock.acquire()
            except Timeout:
                raise UsageError(
                    f"hydra.run.dir={path} is in use by a run that is still going: expected another folder"
                ) from None
        try:
            if (path / METRICS).exists():
                raise UsageError(
                    f"hydra.run.dir={path} already holds a finished run: expected another folder "
                    "(the default is a new one for every run)"
                )
            leftovers = known_files(path)
            for file in leftovers:
                file.unlink()
            for name in FOLDERS:
                with suppress(OSError):  # not there, or not empty
                    (path / name).rmdir()
            if leftovers:
                log.info("removed %d files of a run that did not finish from %s", len(leftovers), path)
        except BaseException:
            lock.release()
            raise
        return cls(path, lock)

    @staticmethod
    def discard(path: Path) -> None:
        """Remove the folder of a run that was refused, or that died, if it holds nothing but what runs write.

        A finished run, and one that is still going, are left alone.
        """
        path = Path(path)
        with suppress(OSError, Timeout), FileLock(path / LOCK, timeout=0) if (path / LOCK).exists() else nullcontext():
            own = {*known_files(path), path / LOG, path / LOCK} if (path / LOCK).exists() else {path / LOG}
            own |= {path / HYDRA / name for name in HYDRA_FILES}
            if all(file in own for file in path.rglob("*") if not file.is_dir()):
                for file in own:
                    file.unlink(missing_ok=True)
                for folder in (*FOLDERS, HYDRA, ""):
                    if (path / folder).is_dir():
                        (path / folder).rmdir()

    @classmethod
    def discard_unfinished(cls, folder: Path) -> None:
        """Discard the runs directly in a folder that did not finish and have written nothing for a day."""
        oldest = time.time() - 86400
        with suppress(OSError):
            for path in folder.iterdir():
                begun = (path / LOCK, path / LOG, path / HYDRA)
                if (path / METRICS).exists() or not any(file.exists() for file in begun):
                    continue
                written = [file.stat().st_mtime for file in (path, *path.rglob("*"))]
                if max(written) < oldest:
                    cls.discard(path)
                    if not path.exists():
                        log.info("removed %s, a run that did not finish", path)

    def close(self) -> None:
        """Release the folder's lock."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self.close()
        if isinstance(error, UsageError):
            self.discard(self.path)

    def write_json(self, name: str, value: object) -> None:
        """Write plain values, NumPy's included.

        Raises:
            ValueError: a number is NaN or infinite (which one is said).
        """
        self.write_text(name, _json(_plain(value, name)))

    def write_text(self, name: str, text: str) -> None:
        """Write text as UTF-8; bytes of names that are no text as JSON writes them, such as ``\\udce9``."""
        with self._file(name) as file:
            file.write(_encoded(text))

    def write_yaml(self, name: str, value: object) -> None:
        """Write plain values as YAML, keys in their order."""
        import yaml

        self.write_text(name, yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110))

    def write_array(self, name: str, array: np.ndarray) -> None:
        """Write one array (.npy)."""
        with self._file(name) as file:
            np.save(file, array, allow_pickle=False)

    def write_npz(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write named arrays, compressed (.npz)."""
        with self._file(name) as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    def write_safetensors(self, name: str, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
        """Write named arrays with a few strings about them (.safetensors)."""
        from safetensors.numpy import save

        # The format stores memory as it lies: an array in another order would come back scrambled.
        contiguous = {key: np.asarray(value, order="C") for key, value in arrays.items()}
        with self._file(name) as file:
            # Without arrays, the library would write an empty map of metadata as JSON that it can't read.
            file.write(save(contiguous, dict(metadata) or None))

    def write_parquet(self, name: str, columns: Mapping[str, np.ndarray | pyarrow.Array]) -> None:
        """Write columns of equal length (.parquet); NaN becomes null."""
        import pyarrow
        import pyarrow.parquet

        arrays = {key: _column(value) if isinstance(value, np.ndarray) else value for key, value in columns.items()}
        with self._file(name) as file:
            pyarrow.parquet.write_table(pyarrow.table(arrays), file, compression="zstd")

    def write_neighbors(self, neighbors: Neighbors) -> None:
        """Write ``neighbors.npz``: ``ids`` int64 and ``distances`` float32, both ``(q, k)``."""
        ids, distances = neighbors.ids.astype(np.int64), neighbors.distances.astype(np.float32)
        self.write_npz(NEIGHBORS, {"ids": ids, "distances": distances})

    def write_curves(self, curves: Curves) -> None:
        """Write ``curves.npz``."""
        self.write_npz(CURVES, {key: value for key, value in asdict(curves).items() if value is not None})

    def write_per_query(
        self,
        *,
        queries: np.ndarray,
        labels: np.ndarray,
        measures: Mapping[str, np.ndarray],
        neighbors: Neighbors,
        right: np.ndarray,
    ) -> None:
        """Write ``per_query.parquet``: one row a query.

        Columns: ``query`` (item number), ``label`` (int64, or a list of them), the measures under their
        names, ``candidates``, and the lists ``first_hits`` (gallery rows), ``first_distances`` and ``first_relevant``
        (1 or 0), shorter where fewer items were found.

        Args:
            queries: int64 ``(q,)``, item numbers in the data set.
            labels: int64 ``(q,)``, or bool ``(q, classes)``.
            measures: float ``(q,)`` each: ``AP``, ``AP_optimistic``, ``AP_pessimistic``, ``P@10``, ``P@50``.
            neighbors: the first results of each query.
            right: bool ``(q, first)``, which of the first ones are relevant.
        """
        first = right.shape[1]
        ids, distances = neighbors.ids[:, :first], neighbors.distances[:, :first]
        classes = np.broadcast_to(np.arange(labels.shape[-1]), labels.shape)
        columns = {
            "query": queries.astype(np.int64),
            "label": labels.astype(np.int64) if labels.ndim == 1 else _lists(labels, classes),
            **measures,
            "candidates": neighbors.candidates.astype(np.int64),
            "first_hits": _lists(ids >= 0, ids.astype(np.int64)),
            "first_distances": _lists(ids >= 0, distances.astype(np.float32)),
            "first_relevant": _lists(ids >= 0, right.astype(np.int8)),
        }
        self.write_parquet(PER_QUERY, columns)

    def write_tradeoff(self, columns: Mapping[str, np.ndarray]) -> None:
        """Write ``tradeoff.parquet``: one row for each query setting of the index, the last being the headline's.

        Columns: the settings under their names (``probes``), ``mAP``, ``P@10``, ``P@50``, ``recall@10/cosine``,
        ``candidates_mean``, ``candidates_fraction``, ``queries_without_candidates``, ``qps``, ``qps_with_encoding``,
        ``latency_ms/p50`` and the others of ``search.latency_ms``, ``bytes_per_item``.

        Args:
            columns: int64 or float64 ``(settings,)`` each; NaN where a figure is not known.
        """
        self.write_parquet(TRADEOFF, columns)

    def write_training(self, epochs: Sequence[Mapping[str, Any]], chosen_epoch: int | None) -> None:
        """Write ``training.json``: each epoch's ``epoch``, ``loss``, ``validation`` and ``terms``."""
        self.write_json(TRAINING, {"chosen_epoch": chosen_epoch, "epochs": list(epochs)})

    @contextmanager
    def directory(self, name: str) -> Iterator[Path]:
        """Yield a sub-folder, such as ``index``, for code that writes its own files, and flush them afterwards."""
        path = self.path / name
        with explained(self.path):
            path.mkdir(parents=True, exist_ok=True)
            yield path
            for file in path.iterdir():
                if file.is_file():
                    flush(file)

    def finish(self, metrics: RunMetrics, key: bytes | None = None) -> None:
        """Finish the run: write its manifest, and ``metrics.json`` once everything else has reached the disk.

        Args:
            metrics: the result.
            key: of this user's runs, which seals the manifest; None for none.

        Raises:
            ValueError: a number is NaN or infinite: a figure that can't be computed is null, or a defect.
        """
        text = _json(_plain(metrics.to_json(), ""))
        with explained(self.path):
            Manifest.of(self.path, finished_files(self.path), _encoded(text), key).write(self.path)
            for name in FOLDERS:
                if (self.path / name).is_dir():
                    flush(self.path / name)
            flush(self.path)
        self.write_text(METRICS, text)
        flush(self.path)

    @contextmanager
    def _file(self, name: str) -> Iterator[IO[bytes]]:
        with explained(self.path), atomic_file(self.path / name) as file:
            yield file


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _plain(value: object, where: str) -> Any:
    """Return NumPy's scalars and arrays as plain values; refuse what JSON can't hold."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}".lstrip(".")) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is {value}: numbers of a run are finite, or None")
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"{where} is a {type(value).__name__}, which JSON can't hold")


def _lists(kept: np.ndarray, values: np.ndarray) -> pyarrow.Array:
    """Return a column of lists: of each row the values at the kept places."""
    import pyarrow

    offsets = np.concatenate([[0], np.cumsum(kept.sum(1))]).astype(np.int32)
    return pyarrow.ListArray.from_arrays(_column(offsets), _column(values[kept]))


def _column(values: np.ndarray) -> pyarrow.Array:
    """Return an array of numbers as a column, NaN as null."""
    import pyarrow

    if values.dtype.kind not in "iuf":
        raise TypeError(f"a column holds numbers, not {values.dtype}")
    # pyarrow.array imports pandas, which takes half a second.
    known = np.packbits(~np.isnan(values), bitorder="little")
    buffers = [pyarrow.py_buffer(known), pyarrow.py_buffer(np.ascontiguousarray(values))]
    return pyarrow.Array.from_buffers(pyarrow.from_numpy_dtype(values.dtype), len(values), buffers)
