"""Where the program keeps what can be computed again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return the cache folder, made if need be.

    ``$LSHBENCH_CACHE``, else ``$XDG_CACHE_HOME/lshbench``, else ``~/.cache/lshbench``.
    """
    if chosen := os.environ.get("LSHBENCH_CACHE"):
        folder = Path(chosen).expanduser()
    else:
        home = os.environ.get("XDG_CACHE_HOME")
        folder = (Path(home) if home else Path.home() / ".cache") / "lshbench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
