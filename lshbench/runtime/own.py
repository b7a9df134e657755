"""The key that seals this user's runs, so that they are known from run folders that came from elsewhere."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from lshbench.errors import UsageError
from lshbench.runtime.cache import cache_dir, cache_path

BYTES = 32


def own_key(*, make: bool = False) -> bytes | None:
    """Return the key in the user's cache folder; None where there is none, or none can be kept.

    Args:
        make: whether to draw one if there is none.
    """
    with suppress(OSError, RuntimeError, UsageError):  # RuntimeError: there is no home folder
        path = (cache_dir() if make else cache_path()) / "key"
        if make and not path.exists():
            _draw(path)
        key = path.read_bytes()
        return key if len(key) == BYTES else None
    return None


def _draw(path: Path) -> None:
    """Write a new key, whole and for its user's eyes only; of several processes the first one's stays."""
    temporary = path.with_name(f".key.{os.urandom(4).hex()}.partial")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(BYTES))
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
