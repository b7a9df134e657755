"""Checks of a source's configuration values, which raise UsageError for a wrong one."""

from __future__ import annotations

from pathlib import Path

from lshbench.errors import wrong_value


def check_limit(key: str, value: object) -> None:
    """Check a limit on the number of items: null, or a positive integer."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise wrong_value(key, value, "a positive number of items, or null for all")


def check_number(key: str, value: object, smallest: int) -> None:
    """Check an integer that must not be below the smallest."""
    if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
        raise wrong_value(key, value, f"a whole number from {smallest}")


def check_fraction(key: str, value: object) -> None:
    """Check a number strictly between 0 and 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise wrong_value(key, value, "a fraction between 0 and 1")


def check_name(key: str, value: object) -> None:
    """Check the name of a column or a split, or ``auto``."""
    if not isinstance(value, str) or not value:
        raise wrong_value(key, value, "auto or a name")


def expanded(path: str | Path) -> Path:
    """Return a path with ``~`` as the home folder; a name that begins with it, and is there or is no user's, stays."""
    try:
        return Path(path) if Path(path).exists() else Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def existing_path(key: str, value: object, kind: str = "file or folder") -> Path:
    """Check that a path exists and return it resolved; ``kind`` is ``folder``, ``file`` or ``file or folder``.

    Raises:
        UsageError: it is not there, or of another kind.
    """
    if not isinstance(value, str | Path) or not str(value):
        raise wrong_value(key, value, f"the path of a {kind}")
    path = expanded(value)
    there = {"folder": path.is_dir, "file": path.is_file}.get(kind, path.exists)
    if not there():
        fault = f"it is not a {kind}" if path.exists() else "it is not there"
        raise wrong_value(key, str(value), f"the path of a {kind}; {fault} (seen from {Path.cwd()})")
    return path.resolve()
