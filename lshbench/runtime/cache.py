"""The cache folder: features, references, checkpoints and hashes of files, all of which can be computed again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir(chosen: str | None = None) -> Path:
    """Return the cache folder, which is made if it is not there.

    Args:
        chosen: the folder; None takes ``$LSHBENCH_CACHE``, else ``$XDG_CACHE_HOME/lshbench``, else
            ``~/.cache/lshbench``.
    """
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(chosen or os.environ.get("LSHBENCH_CACHE") or Path(home, "lshbench")).expanduser().resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder
