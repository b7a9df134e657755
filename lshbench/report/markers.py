"""Texts between a document's markers: tables that are made anew without touching what stands around them."""

from __future__ import annotations

import re
from pathlib import Path

from lshbench.errors import UsageError
from lshbench.run_folder import atomic_file


def markers(name: str) -> tuple[str, str]:
    """Return what stands before and after a text of that name."""
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def fill(document: Path, name: str, text: str) -> None:
    """Put a text between a document's markers of that name.

    Raises:
        UsageError: there is no such document, or it has not exactly one pair of them.
    """
    if not document.is_file():
        raise UsageError(f"--into {document}: expected a document that is there")
    begin, end = markers(name)
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    after, count = pattern.subn(lambda _: f"{begin}\n{text}{end}", document.read_text(encoding="utf-8"))
    if count != 1:
        raise UsageError(f"--into {document}: {count} places for the tables; expected one {begin} with {end} after it")
    with atomic_file(document) as file:
        file.write(after.encode())
