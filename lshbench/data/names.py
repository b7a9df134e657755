"""Names from file systems and files that may hold bytes which are no text."""

from __future__ import annotations


def decoded(name: bytes) -> str:
    """Return bytes as text: UTF-8, in which bytes that are none are kept reversibly, as Python keeps file names."""
    return name.decode("utf-8", "surrogateescape")


def printable(name: str) -> str:
    """Return a name that can be written anywhere: bytes that are no text are shown, such as ``caf\\xe9``."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return name
