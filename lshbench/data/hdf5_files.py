"""Open arrays in HDF5 files, MATLAB files from version 7.3 on among them."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lshbench.data.checks import raw_labels
from lshbench.data.named_array import NamedArray, object_array, plain_array
from lshbench.data.names import decoded
from lshbench.files import array_bytes, check_memory

if TYPE_CHECKING:
    import h5py

log = logging.getLogger(__name__)

BLOCK_ROWS = 16384
"""Rows of a compressed HDF5 data set that are read in one piece."""


def is_hdf5(path: Path) -> bool:
    import h5py

    return bool(h5py.is_hdf5(path))


def open_hdf5(path: Path) -> list[NamedArray]:
    import h5py

    file = h5py.File(path, "r")
    found: list[NamedArray] = []

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset) or not item.shape or name.startswith("#refs#"):
            return
        array = _hdf5_array(name, item, path)
        if "MATLAB_class" in item.attrs and len(array.shape) == 2:
            # MATLAB writes columns first, and gives every vector two dimensions.
            array = array.transposed()
            log.info("%s: %s is MATLAB's, and read with its rows as there", path.name, array)
        found.append(array)

    file.visititems(visit)
    return found


def _hdf5_array(name: str, stored: h5py.Dataset, path: Path) -> NamedArray:
    import h5py

    if h5py.check_string_dtype(stored.dtype) is not None:

        def strings() -> np.ndarray:
            return np.array([decoded(value) for value in np.ravel(stored[:])], dtype=str).reshape(stored.shape)

        return NamedArray(
            name, stored.shape, "U", lambda rows: strings()[rows],
            lambda: raw_labels(strings(), f"{path.name}: {name!r}"), (path,),
        )  # fmt: skip
    if stored.dtype.hasobject:
        return object_array(name, stored.shape, path)
    sources = _hdf5_sources(stored, path)
    offset = stored.id.get_offset() if stored.chunks is None and not sources else None
    if offset is not None and stored.dtype.kind in "fiub":
        return plain_array(name, np.memmap(path, stored.dtype, "r", offset, stored.shape), path)

    def read(rows: np.ndarray) -> np.ndarray:
        check_memory(array_bytes((len(rows), *stored.shape[1:]), stored.dtype), name)
        # Fancy indexing in HDF5 costs far more a row than reading a few rows too many.
        parts = np.split(rows, np.flatnonzero(np.diff(rows // BLOCK_ROWS)) + 1)
        blocks = [stored[part[0] : part[-1] + 1][part - part[0]] for part in parts if len(part)]
        return np.concatenate(blocks) if blocks else np.empty((0, *stored.shape[1:]), stored.dtype)

    return replace(plain_array(name, stored, path, read), files=(path, *sources))


def _hdf5_sources(stored: h5py.Dataset, path: Path) -> list[Path]:
    """Return the other files that hold values of a data set: a virtual one's sources, and theirs; external storage.

    Raises:
        ValueError: a source is not there: HDF5 itself would read zeros in its place.
    """
    import h5py

    found = {_hdf5_neighbour(os.fsdecode(file), path, stored.name) for file, _, _ in stored.external or ()}
    for source in stored.virtual_sources() if stored.is_virtual else ():
        named = path if source.file_name == "." else _hdf5_neighbour(source.file_name, path, stored.name)
        with h5py.File(named, "r") as file:
            inner = file.get(source.dset_name)
            if inner is None:
                raise ValueError(f"{stored.name} is virtual, and {named} has no {source.dset_name}")
            found |= {*([] if source.file_name == "." else [named]), *_hdf5_sources(inner, named)}
    return sorted(found)


def _hdf5_neighbour(name: str, holder: Path, dataset: str) -> Path:
    """Return a file that a data set names, as HDF5 finds it: beside the file that names it, else as it stands."""
    if "%b" in name:
        raise ValueError(f"{dataset} takes its values from a series of files, {name}; expected single files")
    folder = holder.resolve().parent
    for candidate in (holder.parent / name, Path(name)):
        if candidate.is_file():
            if not (found := candidate.resolve()).is_relative_to(folder):
                raise ValueError(f"{dataset} takes its values from {name}; expected a file in or below {folder}")
            return found
    raise ValueError(f"{dataset} takes its values from {name}, which is not there")


def stored_distance(path: Path) -> str | None:
    """Return the distance that a file names as ann-benchmarks' do; None if it names none, or is of another kind."""
    import h5py

    if path.suffix.lower() not in (".h5", ".hdf5"):
        return None
    with h5py.File(path, "r") as file:
        named = file.attrs.get("distance")
    return None if named is None else decoded(named) if isinstance(named, bytes) else str(named)
