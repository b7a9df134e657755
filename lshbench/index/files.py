"""Files of a saved index.  ``index.json`` is written last, in one step: if it exists, the others are complete.

What compiled code reads is checked when it is opened: type, shape, range and order.  A wrong row number there would be
an access to memory that isn't the array's, and other answers at best.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lshbench.files import fits, open_npy, read_small

DESCRIPTION = "index.json"

MOST_ITEMS, MOST_DIMENSIONS = (1 << 31) - 1, 1 << 24
MOST_VALUES = 1000
"""Values of a query setting at most."""

MOST_PROBES = 1 << 24
"""Buckets that a query of an opened index probes at most."""


def save_arrays(folder: Path, arrays: dict[str, np.ndarray]) -> list[str]:
    """Write arrays, which can be opened as memory maps, by their files' names; return the names."""
    for name, array in arrays.items():
        np.save(folder / name, array, allow_pickle=False)
    return list(arrays)


def open_array(path: Path, dtype: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    """Return a saved array as a memory map; nothing that is written to it reaches the file.

    Args:
        path: of the file.
        dtype: what it holds, such as ``np.int32``.
        shape: what it has to be; None for any extent.

    Raises:
        ValueError: it is another array, or none.
    """
    try:
        # Copy on write: read-only arrays are another type to numba, which would compile the kernels once more.
        found = np.asarray(open_npy(path, "c"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name}: {getattr(error, 'strerror', None) or error}") from error
    if found.dtype != dtype or not fits(found.shape, shape):
        raise ValueError(f"{path.name} is {found.dtype} {found.shape}, expected {np.dtype(dtype)} {shape}")
    if not found.flags.c_contiguous:
        raise ValueError(f"{path.name} is in Fortran's order")
    return found


@dataclass(frozen=True)
class Stored:
    """Saved arrays of an index by faiss or another library.

    Attributes:
        items: in the gallery.
        dim: numbers of a vector that faiss compares, or bits of a code.
    """

    folder: Path
    items: int
    dim: int

    def array(self, name: str, dtype: Any, shape: tuple[int | None, ...]) -> np.ndarray:
        """Return an array, checked as :func:`open_array` does."""
        return open_array(self.folder / f"{name}.npy", dtype, shape)


def check_range(name: str, values: np.ndarray, least: float, most: float) -> np.ndarray:
    """Return values, all of which are from ``least`` to ``most``, and so no NaN.

    Raises:
        ValueError: one is not.
    """
    if values.size and not (values.min() >= least and values.max() <= most):
        raise ValueError(f"{name} has values from {values.min()} to {values.max()}, expected {least} to {most}")
    return values


def check_offsets(name: str, offsets: np.ndarray, total: int) -> np.ndarray:
    """Return where lists begin and the last one ends: along the last axis from 0 to ``total``, never falling.

    Raises:
        ValueError: they are not.
    """
    ends = offsets.shape[-1] and (offsets[..., 0] == 0).all() and (offsets[..., -1] == total).all()
    if not ends or (offsets[..., 1:] < offsets[..., :-1]).any():
        raise ValueError(f"{name} does not rise from 0 to {total}")
    return offsets


def check_rows(name: str, rows: np.ndarray, items: int) -> np.ndarray:
    """Return gallery rows ``(..., items)``, each of which is there once along the last axis.

    Raises:
        ValueError: one is missing, or out of range.
    """
    check_range(name, rows, 0, items - 1)
    for own in rows.reshape(-1, items) if items else ():
        seen = np.zeros(items, bool)
        seen[own] = True
        if not seen.all():
            raise ValueError(f"{name} lacks gallery row {int(np.argmin(seen))}")
    return rows


def open_rows_of_words(path: Path, bits: int, items: int) -> np.ndarray:
    """Return saved codes as uint64 ``(items, ceil(bits / 64))``, an item a row."""
    words = open_array(path, np.uint64, (items, (bits + 63) // 64))
    return check_spare_bits(path.name, words, bits)


def check_spare_bits(name: str, words: np.ndarray, bits: int) -> np.ndarray:
    """Return codes as words ``(items, words)``, whose bits beyond the code's length are zero.

    Raises:
        ValueError: one is set: distances would exceed the code's length.
    """
    spare = np.ones(64 * words.shape[1], np.uint8)
    spare[:bits] = 0
    # A count of differing bits doesn't depend on the order of bytes within a word, which is that of the packed code.
    masks = np.packbits(spare).view(np.uint64)
    for word in np.flatnonzero(masks):
        if (words[:, word] & masks[word]).any():
            raise ValueError(f"{name} has bits beyond the {bits} of its codes")
    return words


def check_inverse_norms(name: str, norms: np.ndarray) -> np.ndarray:
    """Return inverse norms of vectors, which are finite and not negative.

    Raises:
        ValueError: one is not.
    """
    return check_range(name, norms, 0, float(np.finfo(np.float32).max))


def save_description(folder: Path, description: dict[str, Any], name: str = DESCRIPTION) -> None:
    """Write ``index.json``: what the index is, and which files belong to it."""
    temporary = folder / f"{name}.part"
    temporary.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    temporary.replace(folder / name)


def open_description(folder: Path, kind: str, name: str = DESCRIPTION) -> dict[str, Any]:
    """Return what ``index.json`` says.

    Raises:
        ValueError: the folder holds an index of another kind, or values that no index has.
    """
    description = json.loads(read_small(folder / name))
    if not isinstance(description, dict) or description.get("index") != kind:
        found = description.get("index") if isinstance(description, dict) else description
        raise ValueError(f"{folder} holds an index of the kind {str(found)[:80]}, not {kind}")
    check_number(description, "items", MOST_ITEMS, least=0)
    for value in [*description.values(), *description.get("keys", {}).values()]:
        if isinstance(value, list) and len(value) > MOST_VALUES:
            raise ValueError(f"{DESCRIPTION} has a list of {len(value):,} values")
    return description


def check_number(description: dict[str, Any], key: str, most: int, least: int = 1) -> int:
    """Return a whole number of a description, from ``least`` to ``most``.

    Raises:
        ValueError: it is none.
    """
    value = description.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{DESCRIPTION} has {key}={value!r:.80}, expected a number from {least} to {most}")
    return value


def check_features(features: np.ndarray | None, description: dict[str, Any]) -> np.ndarray:
    """Return the features of a saved index's gallery, checked.

    Raises:
        ValueError: there are none, or not as many or as wide as the gallery's, or not float32.
    """
    expected = (description["items"], description["dim"])
    if features is None or features.shape != expected or features.dtype != np.float32:
        given = "none" if features is None else f"an array {features.shape} of {features.dtype}"
        raise ValueError(f"ranking by cosine takes the gallery's features {expected}, float32, but was given {given}")
    return features
