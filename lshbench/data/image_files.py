"""Splits of image files."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lshbench.data.held_out import RawSplit
from lshbench.errors import UsageError


class ImageFiles(RawSplit):
    """A split whose items are image files, one a row."""

    kind = "images"

    @abstractmethod
    def file(self, row: int) -> Path:
        """Return a row's file."""

    def image_bytes(self, rows: np.ndarray) -> Iterator[bytes | np.ndarray]:
        for row in rows:
            path = self.file(row)
            try:
                yield path.read_bytes()
            except OSError as error:
                raise UsageError(f"{path} can't be read: {error.strerror}") from error

    def describe(self, row: int) -> str:
        return str(self.file(row))
