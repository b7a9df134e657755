"""Arrays that compiled code takes by their addresses: taking twenty of them over from Python costs two microseconds.

A search of one query in hash tables takes some five, so that it counts.  Compiled code is kept on disk by the module
that calls it: after an edit here, the kernels' modules have to be touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import carray, types
from numba.extending import intrinsic

from lshbench.kernels.compilation import kernel

SLOT = 3
"""Numbers of a frame that tell of one array: where it lies, and how long it is in each of two dimensions."""


@dataclass(frozen=True)
class Frame:
    """Addresses and shapes, with the arrays that they are of, which live as long as it does.

    Attributes:
        numbers: int64 ``(SLOT * arrays,)``, what compiled code takes.
    """

    numbers: np.ndarray
    arrays: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, arrays: Sequence[np.ndarray], layout: Sequence[tuple[int, type]]) -> Frame:
        """Return the frame of arrays of one or two dimensions.

        Args:
            layout: how many dimensions each array has to have, and of which type its elements have to be.

        Raises:
            ValueError: an array is of another kind than the layout says, or not in C order.
        """
        numbers = np.zeros(SLOT * len(layout), np.int64)
        for place, (array, (dimensions, kind)) in enumerate(zip(arrays, layout, strict=True)):
            if array.ndim != dimensions or array.dtype != kind or not array.flags.c_contiguous:
                raise ValueError(
                    f"array {place} of a frame: {array.dtype} of {array.ndim} dimensions, strides {array.strides}; "
                    f"expected {np.dtype(kind)} of {dimensions} in C order"
                )
            start = SLOT * place
            numbers[start] = array.ctypes.data
            numbers[start + 1 : start + 1 + array.ndim] = array.shape
        return cls(numbers, tuple(arrays))


@intrinsic
def _pointer(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


@kernel(inline="always")
def held_row(frame: np.ndarray, place: int, kind: type) -> np.ndarray:
    """Return an array of one dimension, and of the elements that it was made of."""
    return carray(_pointer(frame[SLOT * place]), (frame[SLOT * place + 1],), kind)


@kernel(inline="always")
def held_rows(frame: np.ndarray, place: int, kind: type) -> np.ndarray:
    """Return an array of two dimensions, likewise."""
    start = SLOT * place
    return carray(_pointer(frame[start]), (frame[start + 1], frame[start + 2]), kind)
