"""Named tuples by their addresses: the same memory, whatever the arrays' shapes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from numba import njit

from lshbench.kernels.frames import Float32Vector, Frame, Int64Vector, read_frame
from lshbench.kernels.frames import UInt64Matrix as Matrix


class Inner(NamedTuple):
    rows: Matrix
    offset: int


class Outer(NamedTuple):
    row: Float32Vector
    inner: Inner
    none: Int64Vector


@njit
def _add(numbers: np.ndarray) -> tuple[float, int, int]:
    outer = read_frame(numbers, Outer)
    row, rows = outer.row, outer.inner.rows
    row[0] += np.float32(1)
    return row.sum(), rows[-1, -1] + rows.shape[0] * rows.shape[1], outer.inner.offset + len(outer.none)


def frame(row: np.ndarray, rows: np.ndarray) -> Frame:
    return Frame.of(Outer(row, Inner(rows, -5), np.zeros(2, np.int64)))


def test_a_frame_stands_for_the_arrays_that_it_was_made_of() -> None:
    row, rows = np.arange(5, dtype=np.float32), np.arange(12, dtype=np.uint64).reshape(3, 4)
    assert _add(frame(row, rows).numbers) == (11.0, 11 + 12, -5 + 2)
    assert row[0] == 1


@pytest.mark.parametrize(
    ("row", "rows", "message"),
    [
        (np.zeros(2), np.zeros((3, 4), np.uint64), "Outer.row is float64 of 1 dimensions.*expected float32 of 1"),
        (np.zeros(2, np.float32), np.zeros(3, np.uint64), "Outer.inner.rows is uint64 of 1.*expected uint64 of 2"),
        (np.zeros(2, np.float32), np.zeros((3, 4), np.uint64).T, "Outer.inner.rows is .*in C order"),
    ],
)
def test_arrays_of_another_kind_are_refused(row: np.ndarray, rows: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frame(row, rows)


def test_a_frame_keeps_its_arrays() -> None:
    row = np.arange(5, dtype=np.float32)
    assert frame(row, np.zeros((1, 1), np.uint64)).held.row is row  # type: ignore[attr-defined]
