"""Arrays in files, whose values are read on request: what every format is opened as."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lshbench.data.checks import RawLabels, raw_labels
from lshbench.data.columns import Column
from lshbench.data.names import printable
from lshbench.errors import UsageError

if TYPE_CHECKING:
    import h5py

Reader = Callable[[np.ndarray], np.ndarray]

NEVER_LOADED = "it holds Python objects, which are never loaded"


@dataclass(frozen=True)
class NamedArray:
    """An array in a file, whose values are read on request.

    Attributes:
        name: its name in the file.
        shape: its shape; ``(n, width)`` for vectors.
        kind: NumPy's kind of its values: ``f``, ``i``, ``u``, ``b``, ``U`` for strings, ``O`` for others.
        read: returns the values of ascending row numbers.
        labels: returns all values as labels.
        files: the files that hold it.
        column: the column that it is, in Parquet.
        whole: the array itself where it can be sliced in any direction, else None.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    read: Reader
    labels: Callable[[], RawLabels]
    files: tuple[Path, ...]
    column: Column | None = None
    whole: np.ndarray | None = None

    def __str__(self) -> str:
        if self.column is not None:
            return str(self.column)
        words = {"f": "floats", "i": "integers", "u": "integers", "b": "truth values", "U": "strings", "S": "strings"}
        return f"{printable(self.name)} ({' x '.join(map(str, self.shape))} {words.get(self.kind, 'objects')})"

    def transposed(self) -> NamedArray:
        """Return a two-dimensional array with its rows and columns exchanged, for files that keep items in columns."""
        whole, count = self.whole, self.shape[0]

        def read(rows: np.ndarray) -> np.ndarray:
            if whole is not None:
                return np.ascontiguousarray(whole[:, rows].T)
            return np.ascontiguousarray(self.read(np.arange(count))[:, rows].T)

        def labels() -> RawLabels:
            return raw_labels(self.read(np.arange(count)).T, f"{self.files[0].name}: {self.name!r}")

        return replace(self, shape=self.shape[::-1], read=read, labels=labels, whole=None)


def plain_array(name: str, values: np.ndarray | h5py.Dataset, file: Path, read: Reader | None = None) -> NamedArray:
    def labels() -> RawLabels:
        return raw_labels(np.asarray(values), f"{file.name}: {name!r}")

    whole = values if isinstance(values, np.ndarray) else None
    reader = read or (lambda rows: values[rows])
    return NamedArray(name, values.shape, values.dtype.kind, reader, labels, (file,), whole=whole)


def object_array(name: str, shape: tuple[int, ...], file: Path) -> NamedArray:
    """Return an array of Python objects: it can be named, and is refused where it is asked for."""

    def refuse(*_: object) -> Any:
        raise UsageError(f"{file.name}: {name!r} can't be read: {NEVER_LOADED}")

    return NamedArray(name, shape, "O", refuse, refuse, (file,))
