"""Damage to run folders for tests: by chance, and by somebody who writes a manifest that fits."""

from __future__ import annotations

from pathlib import Path

from lshbench.run_folder.contents import METRICS, finished_files
from lshbench.run_folder.manifest import Manifest


def refit(folder: Path, key: bytes | None = None) -> None:
    """Write the manifest of a run's folder anew, for its files as they are now; sealed if there is a key."""
    Manifest.of(folder, finished_files(folder), (folder / METRICS).read_bytes(), key).write(folder)
