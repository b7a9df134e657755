"""The items of a run's gallery: their numbers and names, and the names of classes.

Kept in ``index/`` beside the index, which answers in gallery rows, so that answers can be read without the data set.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from lshbench.run_folder.contents import CLASS_NAMES, ITEM_IDS, ITEM_NAME_ENDS, ITEM_NAMES
from lshbench.run_folder.reader import Run
from lshbench.run_folder.writer import RunFolder


@dataclass(frozen=True)
class GalleryItems:
    """The items of a run's gallery, row by row; arrays are memory maps.

    Attributes:
        ids: int64 ``(n,)``, the items' numbers in the data set (``Features.ids``).
        names: uint8, the items' names (``Split.describe``) as UTF-8, one after the other.
        name_ends: int64 ``(n,)``, where in ``names`` each of them ends.
        class_names: a name for each label, or None.
    """

    ids: np.ndarray
    names: np.ndarray
    name_ends: np.ndarray
    class_names: list[str] | None

    @classmethod
    def open(cls, run: Run) -> Self:
        """Open the items of a finished run."""
        ids, names, ends = (run.array(name) for name in (ITEM_IDS, ITEM_NAMES, ITEM_NAME_ENDS))
        return cls(ids, names, ends, json.loads((run.path / CLASS_NAMES).read_bytes())["class_names"])

    def __len__(self) -> int:
        return len(self.ids)

    def name(self, row: int) -> str:
        """Return the name of a gallery row's item, such as a file name."""
        start = int(self.name_ends[row - 1]) if row else 0
        return bytes(self.names[start : int(self.name_ends[row])]).decode(errors="replace")


def write_gallery_items(
    folder: RunFolder, ids: np.ndarray, names: Iterable[str], class_names: Sequence[str] | None
) -> None:
    """Write the gallery's items, which :meth:`GalleryItems.open` reads.

    Args:
        folder: of the run.
        ids: int64 ``(n,)``, item numbers of the gallery rows.
        names: of the same items, in the same order; none is empty.
        class_names: a name for each label, or None.
    """
    # File names may hold bytes that are no text.
    encoded = [name.encode(errors="surrogateescape") for name in names]
    folder.write_array(ITEM_IDS, ids.astype(np.int64))
    folder.write_array(ITEM_NAMES, np.frombuffer(b"".join(encoded), np.uint8))
    folder.write_array(ITEM_NAME_ENDS, np.cumsum([len(name) for name in encoded], dtype=np.int64))
    classes = None if class_names is None else [str(name) for name in class_names]
    folder.write_json(CLASS_NAMES, {"class_names": classes})
