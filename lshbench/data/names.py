"""Names from file systems and files that may hold bytes which are no text."""

from __future__ import annotations

from lshbench.text import visible


def decoded(name: bytes) -> str:
    """Return bytes as text: UTF-8, in which bytes that are none are kept reversibly, as Python keeps file names."""
    return name.decode("utf-8", "surrogateescape")


def printable(name: str) -> str:
    """Return a name that can be written anywhere: what is no text or acts on a terminal is shown, as ``caf\\xe9``."""
    return visible(name)
