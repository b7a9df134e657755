"""Files of studies and choices, to which a line is added at a time."""

from __future__ import annotations

import logging
from pathlib import Path

log = logging.getLogger(__name__)


def mend(file: Path) -> None:
    """Take away half a line that a process left which died while it wrote."""
    if not file.is_file():
        return
    content = file.read_bytes()
    if not content.endswith(b"\n") and content:
        log.warning("%s: the last line is not whole and is left out", file)
        with file.open("r+b") as opened:
            opened.truncate(content.rfind(b"\n") + 1)
