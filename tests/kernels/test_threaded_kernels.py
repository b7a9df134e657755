"""Kernels that run on Python's threads, also in a forked process, and arrays whose references aren't counted."""

from __future__ import annotations

import subprocess
import sys

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lshbench.kernels.compilation import kernel
from lshbench.kernels.frames import borrowed
from lshbench.kernels.labels import Labels
from lshbench.kernels.threads import own_part, threaded_kernel

FORKED = """
import os, signal
import numba
import numpy as np
from lshbench.kernels.cosine import squared_norms
numba.set_num_threads(2)
def norms():
    found = np.zeros(5)
    squared_norms(np.arange(10, dtype=np.float32).reshape(5, 2), found)
    return found.tolist()
assert norms() == [1, 13, 41, 85, 145]
child = os.fork()
if child == 0:
    signal.alarm(60)  # kills a child that waits for threads it doesn't have
    os._exit(0 if norms() == [1, 13, 41, 85, 145] else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@threaded_kernel
def _add_own_rows(part: int, parts: int, numbers: np.ndarray, sums: np.ndarray) -> int:
    for i in own_part(len(numbers), part, parts):
        sums[i] += numbers[i].sum()
    return part


@kernel
def _count_from(numbers: np.ndarray, start: int) -> int:
    return len(numbers[start:])


@kernel
def _sum_of_borrowed(labels: Labels) -> int:
    held = borrowed(labels)
    return int(held.gallery.sum() + held.query_masks.sum()) + held.inverted


@given(st.integers(0, 200), st.integers(1, 17))
def test_parts_have_each_round_once_and_differ_by_at_most_one(count: int, parts: int) -> None:
    rounds = [own_part.py_func(count, part, parts) for part in range(parts)]
    assert [i for own in rounds for i in own] == list(range(count))
    assert max(map(len, rounds)) - min(map(len, rounds)) <= 1


@pytest.mark.parametrize("threads", [1, 2])
def test_all_parts_run_and_return(threads: int) -> None:
    before = numba.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    try:
        numbers, sums = np.arange(12.0).reshape(4, 3), np.zeros(4)
        assert _add_own_rows(numbers, sums) == list(range(numba.get_num_threads()))
        assert sums.tolist() == [3, 12, 21, 30]
    finally:
        numba.set_num_threads(before)


def test_a_forked_process_has_threads_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_constant_argument_is_compiled_like_any_number() -> None:
    numbers = np.zeros(5)
    for start in (numba.types.literal(0), numba.types.literal(1), numba.types.int64):
        _count_from.compile((numba.typeof(numbers), start))
    assert [kinds[1] for kinds in _count_from.signatures] == [numba.types.int64]
    assert _count_from(numbers, 2) == 3


def test_borrowed_arrays_hold_what_they_held() -> None:
    none, masks = np.empty(0, np.int64), np.array([[3], [4]], np.uint64)
    labels = Labels(np.empty(0, np.int32), np.array([5, 6], np.int32), masks, masks.T.copy(), 1, none, none)
    references = sys.getrefcount(masks)
    assert _sum_of_borrowed(labels) == 5 + 6 + 3 + 4 + 1
    assert sys.getrefcount(masks) == references
