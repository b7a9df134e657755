"""Arrays by their addresses: the same memory, whatever their shapes."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from lshbench.kernels.frames import Frame, held_row, held_rows

LAYOUT = ((1, np.float32), (2, np.int64))


@njit
def _add(frame: np.ndarray) -> tuple[float, int]:
    row, rows = held_row(frame, 0, np.float32), held_rows(frame, 1, np.int64)
    row[0] += np.float32(1)
    return row.sum(), rows[-1, -1] + rows.shape[0] * rows.shape[1]


def test_a_frame_stands_for_the_arrays_that_it_was_made_of() -> None:
    row, rows = np.arange(5, dtype=np.float32), np.arange(12).reshape(3, 4)
    assert _add(Frame.of([row, rows], LAYOUT).numbers) == (11.0, 11 + 12)
    assert row[0] == 1


@pytest.mark.parametrize(
    ("row", "rows", "message"),
    [
        (np.zeros(2), np.zeros((3, 4), np.int64), "array 0 of a frame: float64 of 1 dimensions.*expected float32 of 1"),
        (np.zeros(2, np.float32), np.zeros(3, np.int64), "array 1 of a frame: int64 of 1.*expected int64 of 2"),
        (np.zeros(2, np.float32), np.zeros((3, 4), np.int64).T, "array 1 of a frame: .*in C order"),
    ],
)
def test_arrays_of_another_kind_are_refused(row: np.ndarray, rows: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Frame.of([row, rows], LAYOUT)


def test_a_frame_keeps_its_arrays() -> None:
    row = np.arange(5, dtype=np.float32)
    frame = Frame.of([row, np.zeros((1, 1), np.int64)], LAYOUT)
    assert frame.arrays[0] is row
