"""The cache folder: features, references, checkpoints and hashes of files, all of which can be computed again."""

from __future__ import annotations

import os
from pathlib import Path

from lshbench.errors import UsageError


def cache_path(chosen: str | None = None) -> Path:
    """Return where the cache folder is, or would be made; the arguments are :func:`cache_dir`'s."""
    return Path(_wanted(chosen)).expanduser().resolve()


def cache_dir(chosen: str | None = None) -> Path:
    """Return the cache folder, which is made if it is not there.

    Args:
        chosen: the folder; None takes ``$LSHBENCH_CACHE``, else ``$XDG_CACHE_HOME/lshbench``, else
            ``~/.cache/lshbench``.

    Raises:
        UsageError: it can't be made.
    """
    wanted = _wanted(chosen)
    try:
        folder = cache_path(chosen)
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: no home folder, or a link that leads to itself
        reason = getattr(error, "strerror", None) or error
        shown = str(wanted) if len(str(wanted)) < 200 else f"{str(wanted)[:80]}..."
        key = "cache" if chosen else "LSHBENCH_CACHE"
        raise UsageError(
            f"{key}={shown!r}: expected a folder that is there or can be made ({reason}); cache=DIR or LSHBENCH_CACHE "
            "choose another"
        ) from error
    return folder


_instead: str | None = None
"""What takes the place of the usual folder in this process (:func:`share_cache`)."""


def _wanted(chosen: str | None) -> str | Path:
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return chosen or _instead or os.environ.get("LSHBENCH_CACHE") or Path(home, "lshbench")


def share_cache(chosen: str | None) -> None:
    """Let a chosen cache folder serve compiled kernels too, in this process, if the usual folder can't be written.

    Kernels are kept before a run's configuration is known, and for all runs alike.

    Args:
        chosen: what ``cache=`` says.
    """
    global _instead
    try:
        if chosen is None or os.access(cache_dir(), os.W_OK):
            return
    except UsageError:
        pass
    _instead = str(chosen)
