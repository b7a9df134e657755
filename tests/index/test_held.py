"""Arrays by their addresses: the same memory, whatever their shapes."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from lshbench.index.held import frame_of, held_row, held_rows


@njit
def _add(frame: np.ndarray) -> tuple[float, int]:
    row, rows = held_row(frame, 0, np.float32), held_rows(frame, 1, np.int64)
    row[0] += np.float32(1)
    return row.sum(), rows[-1, -1] + rows.shape[0] * rows.shape[1]


def test_a_frame_stands_for_the_arrays_that_it_was_made_of() -> None:
    row, rows = np.arange(5, dtype=np.float32), np.arange(12).reshape(3, 4)
    assert _add(frame_of(row, rows)) == (11.0, 11 + 12)
    assert row[0] == 1


def test_arrays_in_another_order_are_refused() -> None:
    with pytest.raises(ValueError, match="array 1 of a frame is not in C order"):
        frame_of(np.zeros(2), np.zeros((3, 4)).T)
