"""Open arrays in NumPy, HDF5, MATLAB, Parquet, PyTorch and fvecs files; their values are read on request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lshbench.data.hdf5_files import is_hdf5, open_hdf5
from lshbench.data.matlab_files import open_mat
from lshbench.data.named_array import NamedArray, object_array, plain_array
from lshbench.data.numpy_files import open_npz
from lshbench.data.parquet_files import open_parquet
from lshbench.data.torch_files import open_torch
from lshbench.data.vector_files import map_vectors
from lshbench.errors import UsageError
from lshbench.files import check_regular, npy_header

SINGLE = (".npy", ".fvecs", ".bvecs", ".ivecs")
"""Files of one array, several of which a folder may hold."""
EXTENSIONS = (".npz", *SINGLE, ".parquet", ".pq", ".h5", ".hdf5", ".mat", ".pt", ".pth", ".safetensors")


def open_arrays(path: Path, key: str) -> list[NamedArray]:
    """Open a file, or a folder of .npy files, and return its arrays.

    Args:
        path: the file or folder.
        key: the configuration key that named it.

    Raises:
        UsageError: a format that isn't known, a damaged file, or pickled objects.
    """
    where = f"{key}={str(path)!r}"
    with _readable(where):
        arrays = _open(path, key)
    return [replace(array, read=_guarded(array.read, where), labels=_guarded(array.labels, where)) for array in arrays]


@contextmanager
def _readable(where: str) -> Iterator[None]:
    """Raise UsageError for whatever a reader raises: of a damaged file, that may be anything."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"{where} can't be read: {str(error) or type(error).__name__}") from error


def _guarded(read: Callable[..., Any], where: str) -> Callable[..., Any]:
    def guarded(*arguments: Any) -> Any:
        with _readable(where):
            return read(*arguments)

    return guarded


def _open(path: Path, key: str) -> list[NamedArray]:
    suffix = path.suffix.lower()
    if not path.is_dir():
        check_regular(path)
    if path.is_dir() or suffix in SINGLE:
        paths = sorted(each for each in path.iterdir() if each.suffix in SINGLE) if path.is_dir() else [path]
        if not paths:
            raise UsageError(
                f"{key}={str(path)!r}: no .npy files in this folder; expected names such as train_x.npy, "
                "train_y.npy, test_x.npy and test_y.npy, or one file"
            )
        return [_open_single(file) for file in paths]
    if suffix == ".npz":
        return open_npz(path)
    if suffix in (".h5", ".hdf5") or (suffix == ".mat" and is_hdf5(path)):
        return open_hdf5(path)
    if suffix == ".mat":
        return open_mat(path)
    if suffix in (".parquet", ".pq"):
        return open_parquet(path)
    if suffix in (".pt", ".pth", ".safetensors"):
        return open_torch(path)
    raise UsageError(
        f"{key}={str(path)!r}: expected a file ending in {', '.join(EXTENSIONS)}, or a folder of .npy files"
    )


def _open_single(file: Path) -> NamedArray:
    check_regular(file)
    if file.suffix != ".npy":
        return plain_array(file.stem, map_vectors(file), file)
    with file.open("rb") as opened:
        shape, _, dtype = npy_header(opened)
    if dtype.hasobject:
        return object_array(file.stem, shape, file)
    return plain_array(file.stem, np.load(file, mmap_mode="r", allow_pickle=False), file)
