"""Tar files as WebDataset writes them, for tests."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

Members = Iterable[tuple[str, bytes | tarfile.TarInfo]]


def write_tar(path: Path, members: Members) -> Path:
    """Write a tar file of members with content, or of headers alone; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path
