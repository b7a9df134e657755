"""Arrays that compiled code takes by their addresses: taking twenty of them over from Python costs two microseconds.

A search of one query in hash tables takes some five, so that it counts.  A frame is an int64 array with the address and
the shape of each array, and is as good as the arrays that it was made of: they have to be kept, and not be moved.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit, types
from numba.extending import intrinsic

SLOT = 3
"""Numbers of a frame that tell of one array: where it lies, and how long it is in each of two dimensions."""


def frame_of(*arrays: np.ndarray) -> np.ndarray:
    """Return the frame of arrays of one or two dimensions, int64 ``(SLOT * arrays,)``.

    Raises:
        ValueError: an array is not in C order.
    """
    frame = np.zeros(SLOT * len(arrays), np.int64)
    for place, array in enumerate(arrays):
        if not array.flags.c_contiguous:
            raise ValueError(f"array {place} of a frame is not in C order")
        start = SLOT * place
        frame[start] = array.ctypes.data
        frame[start + 1 : start + 1 + array.ndim] = array.shape
    return frame


@intrinsic
def _pointer(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


@njit(cache=True, inline="always")
def held_row(frame: np.ndarray, place: int, kind: type) -> np.ndarray:
    """Return an array of one dimension, and of the elements that it was made of."""
    return carray(_pointer(frame[SLOT * place]), (frame[SLOT * place + 1],), kind)


@njit(cache=True, inline="always")
def held_rows(frame: np.ndarray, place: int, kind: type) -> np.ndarray:
    """Return an array of two dimensions, likewise."""
    start = SLOT * place
    return carray(_pointer(frame[start]), (frame[start + 1], frame[start + 2]), kind)
