"""Files of a saved index.  ``index.json`` is written last, in one step: if it exists, the others are complete."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

DESCRIPTION = "index.json"


def save_arrays(folder: Path, arrays: dict[str, np.ndarray]) -> list[str]:
    """Write arrays, which can be opened as memory maps, by their files' names; return the names."""
    for name, array in arrays.items():
        np.save(folder / name, array, allow_pickle=False)
    return list(arrays)


def open_array(path: Path) -> np.ndarray:
    """Return a saved array as a memory map; nothing that is written to it reaches the file."""
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty")
    # Copy on write: read-only arrays are another type to numba, which would compile the kernels once more.
    return np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))


def save_description(folder: Path, description: dict[str, Any]) -> None:
    """Write ``index.json``: what the index is, and which files belong to it."""
    temporary = folder / f"{DESCRIPTION}.part"
    temporary.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    temporary.replace(folder / DESCRIPTION)


def open_description(folder: Path, kind: str) -> dict[str, Any]:
    """Return what ``index.json`` says.

    Raises:
        ValueError: the folder holds an index of another kind.
    """
    description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    if description["index"] != kind:
        raise ValueError(f"{folder} holds an index of the kind {description['index']}, not {kind}")
    return description


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
