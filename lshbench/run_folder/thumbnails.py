"""Small pictures of some queries and their hits, kept in a run's folder so that a report needs no data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lshbench.run_folder.contents import THUMBNAILS
from lshbench.run_folder.disk import atomic_file
from lshbench.run_folder.reader import Run, damage

SIDES = ("query", "gallery")


def write_thumbnails(run: Run, pictures: Mapping[tuple[str, int], bytes]) -> None:
    """Write pictures as one file of arrays: sides, numbers, and the bytes of JPEG files end to end.

    Args:
        run: finished, or with every file but ``metrics.json``.
        pictures: by side and number: ``query`` and the item's number in the data set, or ``gallery`` and the row.
    """
    contents = list(pictures.values())
    arrays: dict[str, Any] = {
        "side": np.array([SIDES.index(side) for side, _ in pictures], np.uint8),
        "number": np.array([number for _, number in pictures], np.int64),
        "end": np.cumsum([len(content) for content in contents], dtype=np.int64),
        "jpeg": np.frombuffer(b"".join(contents), np.uint8),
    }
    with atomic_file(run.path / THUMBNAILS) as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_thumbnails(run: Run) -> dict[tuple[str, int], bytes]:
    """Return the pictures that :func:`write_thumbnails` wrote."""
    stored = run.arrays(THUMBNAILS)
    with damage(run.path / THUMBNAILS):
        whole, ends = stored["jpeg"].tobytes(), stored["end"].tolist()
        keys = [
            (SIDES[side], number)
            for side, number in zip(stored["side"].tolist(), stored["number"].tolist(), strict=True)
        ]
        if len(ends) != len(keys) or [0, *ends] != sorted([0, *ends]) or [0, *ends][-1] != len(whole):
            raise ValueError("its pictures don't end one after the other")
    return {key: whole[start:end] for key, start, end in zip(keys, [0, *ends], ends, strict=False)}
