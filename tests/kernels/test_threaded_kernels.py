"""Kernels that run on Python's threads, also in a forked process, and arrays whose references aren't counted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lshbench.kernels.compilation import kernel
from lshbench.kernels.frames import Int64Vector, borrowed, read_frame
from lshbench.kernels.labels import Labels
from lshbench.kernels.threads import own_part, threaded_kernel

ROOT = Path(__file__).parents[2]

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


ENDED = """
import threading
import numba
import numpy as np
from lshbench.kernels.cosine import squared_norms
numba.set_num_threads(2)
def norms():
    threading.main_thread().join()
    numba.set_num_threads(2)
    found = np.zeros(2)
    squared_norms(np.ones((2, 3), np.float32), found)
    assert found.tolist() == [3, 3]
threading.Thread(target=norms).start()
"""

INTERRUPTED = """
import signal, threading
import numba
import numpy as np
from lshbench.kernels.frames import Frame
from tests.kernels.test_threaded_kernels import Held, summed_by_second_part
numba.set_num_threads(2)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore it
def interrupted():
    summed_by_second_part(Frame.of(Held(np.arange(10))), 1)  # compiles
    threading.Timer(0.1, signal.raise_signal, [signal.SIGINT]).start()
    summed_by_second_part(Frame.of(Held(np.arange(1_000_000))), 500)  # a second or two
try:
    interrupted()
except KeyboardInterrupt:
    ended = True
assert ended
"""


class Held(NamedTuple):
    numbers: Int64Vector


@threaded_kernel
def summed_by_second_part(part: int, parts: int, frame: np.ndarray, rounds: int) -> int:
    numbers = read_frame(frame, Held).numbers
    total = 0
    for _ in range(rounds if part else 0):
        for number in numbers:
            total = (total + number) % 1_000_003  # slow on any processor
    return total


@threaded_kernel
def _count_unless_first(part: int, parts: int, counts: np.ndarray, most: int) -> None:
    if part == 0:
        raise ValueError("no first part")
    for i in range(most):
        counts[part] += (i & 1) + ((i + 1) & 1)


@threaded_kernel(rounds=len)
def _parts_of(part: int, parts: int, numbers: np.ndarray) -> int:
    return part


@kernel
def _borrowed_text(text: str) -> int:
    return len(borrowed(text))


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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.parametrize("script", [FORKED, ENDED, INTERRUPTED], ids=["forked", "ended", "interrupted"])
def test_threads_of_a_process_that_is(script: str) -> None:
    environment = {**os.environ, "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd=ROOT, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_is_raised_once_all_parts_are_done() -> None:
    before = numba.get_num_threads()
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one thread only")
    numba.set_num_threads(2)
    try:
        counts = np.zeros(2, np.int64)
        with pytest.raises(ValueError, match="no first part"):
            _count_unless_first(counts, 20_000_000)
        assert counts[1] == 20_000_000
    finally:
        numba.set_num_threads(before)


def test_no_more_threads_are_used_than_there_are_rounds() -> None:
    assert _parts_of(np.zeros(1)) == [0]
    assert _parts_of(np.zeros(0)) == [0]
    assert _parts_of(np.zeros(1000)) == list(range(numba.get_num_threads()))


def test_only_arrays_and_numbers_are_borrowed() -> None:
    with pytest.raises(numba.TypingError, match="have to be counted"):
        _borrowed_text("text")


def test_a_constant_argument_is_compiled_like_any_number() -> None:
    numbers = np.zeros(5)
    for start in (numba.types.literal(0), numba.types.literal(1), numba.types.int64):
        _count_from.compile((numba.typeof(numbers), start))
    assert [kinds[1] for kinds in _count_from.signatures] == [numba.types.int64]
    assert _count_from(numbers, 2) == 3


def test_borrowed_arrays_hold_what_they_held_and_are_not_released() -> None:
    none, masks = np.empty(0, np.int64), np.array([[3], [4]], np.uint64)
    labels = Labels(np.empty(0, np.int32), np.array([5, 6], np.int32), masks, masks.T.copy(), 1, none, none)
    references = sys.getrefcount(masks)
    assert _sum_of_borrowed(labels) == 5 + 6 + 3 + 4 + 1
    assert sys.getrefcount(masks) == references
