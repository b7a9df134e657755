"""The items of a run's gallery: their numbers and names, and the names of classes.

Kept in ``index/`` beside the index, which answers in gallery rows, so that answers can be read without the data set.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from lshbench.run_folder.contents import CLASS_NAMES, GALLERY_LABELS, ITEM_IDS, ITEM_NAME_ENDS, ITEM_NAMES
from lshbench.run_folder.reader import Run, damage
from lshbench.run_folder.writer import RunFolder
from lshbench.text import visible


@dataclass(frozen=True)
class GalleryItems:
    """The items of a run's gallery, row by row; arrays are memory maps.

    Attributes:
        ids: int64 ``(n,)``, the items' numbers in the data set (``Features.ids``).
        names: uint8, the items' names (``Split.describe``) as UTF-8, one after the other.
        name_ends: int64 ``(n,)``, where in ``names`` each of them ends.
        labels: int64 ``(n,)``, or bool ``(n, classes)``.
        class_names: a name for each label, or None.
    """

    ids: np.ndarray
    names: np.ndarray
    name_ends: np.ndarray
    labels: np.ndarray
    class_names: list[str] | None

    @classmethod
    def open(cls, run: Run) -> Self:
        """Open the items of a finished run, checked.

        Raises:
            UsageError: a file is missing, damaged, or doesn't fit the others.
        """
        count = run.metrics.dataset.gallery
        ids = run.array(ITEM_IDS, np.int64, (count,))
        ends = run.array(ITEM_NAME_ENDS, np.int64, (count,))
        names = run.array(ITEM_NAMES, np.uint8, (None,))
        with damage(run.path / ITEM_IDS):
            if ids.min() < 0:
                raise ValueError("a negative item number")
        with damage(run.path / ITEM_NAME_ENDS):
            if ends[0] < 0 or ends[-1] != len(names) or (np.diff(ends) < 0).any():
                raise ValueError(f"names don't end one after the other within {ITEM_NAMES}")
        classes = class_names(run)
        return cls(ids, names, ends, _labels(run, count, classes), classes)

    def __len__(self) -> int:
        return len(self.ids)

    def name(self, row: int) -> str:
        """Return the name of a gallery row's item, such as a file name, as it can be shown."""
        start = int(self.name_ends[row - 1]) if row else 0
        return visible(bytes(self.names[start : int(self.name_ends[row])]).decode(errors="surrogateescape"))


def class_names(run: Run) -> list[str] | None:
    """Return the names of a run's classes by number, as they can be shown; None where they have none."""
    names = run.json(CLASS_NAMES).get("class_names")
    with damage(run.path / CLASS_NAMES):
        if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise ValueError("expected a list of names")
    return None if names is None else [visible(name) for name in names]


def _labels(run: Run, count: int, classes: list[str] | None) -> np.ndarray:
    """Return the gallery's labels, each of which has a name if any has."""
    labels = run.array(GALLERY_LABELS)
    with damage(run.path / GALLERY_LABELS):
        several = labels.ndim == 2
        if labels.dtype != (np.bool_ if several else np.int64) or labels.ndim not in (1, 2) or len(labels) != count:
            raise ValueError(f"an array {labels.shape} of {labels.dtype} is no labels of {count:,} items")
        most = labels.shape[1] - 1 if several else int(labels.max())
        if not several and labels.min() < 0:
            raise ValueError("a negative label")
        if classes is not None and most >= len(classes):
            raise ValueError(f"label {most}, and {len(classes)} names of classes")
    return labels


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
