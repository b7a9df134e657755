"""Files of a saved index.  ``index.json`` is written last, in one step: if it exists, the others are whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

DESCRIPTION = "index.json"


def save_array(path: Path, array: np.ndarray) -> None:
    """Write one array, which can be opened as a memory map."""
    np.save(path, array, allow_pickle=False)


def open_array(path: Path) -> np.ndarray:
    """Return a saved array as a memory map; nothing that is written to it reaches the file."""
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty")
    # Copy on write, as read-only arrays are another type to compiled loops, which would be compiled once more.
    return np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))


def save_description(folder: Path, description: dict[str, Any]) -> None:
    """Write ``index.json``: what the index is, and which files belong to it."""
    temporary = folder / f"{DESCRIPTION}.part"
    temporary.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    temporary.replace(folder / DESCRIPTION)
