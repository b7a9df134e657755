"""Packed words: codes as 64-bit words, and the kernels that compute Hamming distances from them.

Words are stored plane by plane, uint64 ``(words, n)``, so that one vector instruction reads the same word of several
items.  Distances come in packs of 64 items, four to an entry of 64 bits: lane ``s`` (16 bits) of a pack's entry ``j``
(of 16) belongs to item ``16 s + j`` of the pack.  Counting bits in 64-bit elements and merging four counts by shifts
avoids narrowing vectors, which costs more than the counts themselves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from lshbench.kernels.compilation import kernel
from lshbench.types import Codes

LANE = np.uint64(0xFFFF)
ONES = np.uint64(0x0001_0001_0001_0001)
TOPS = np.uint64(0x8000_8000_8000_8000)


def code_words(codes: Codes) -> np.ndarray:
    """Return packed codes as uint64 ``(ceil(bits / 64), n)``; bits beyond the code's length are zero.

    A view for codes of exactly 64 bits that are writable, else a copy of the codes' size.
    """
    width = codes.packed.shape[1]
    words = (width + 7) // 8
    spare = 8 * width - codes.bits
    padded = np.ascontiguousarray(codes.packed)
    if width % 8 or spare:
        padded = np.zeros((len(codes), 8 * words), np.uint8)
        padded[:, :width] = codes.packed
        if spare:
            padded[:, width - 1] &= np.uint8(0xFF << spare & 0xFF)
    # A count of differing bits doesn't depend on the order of bytes within a word.
    planes = np.ascontiguousarray(padded.view(np.uint64).reshape(len(codes), words).T)
    # Read-only arrays are another type to the kernels, which would be compiled once more for them.
    return planes if planes.flags.writeable else planes.copy()


@intrinsic
def popcount(typing_context: Any, word: Any) -> Any:
    """Count the set bits of a uint64: LLVM's ``ctpop``, an instruction wherever the processor has one."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@intrinsic
def lowest_bit(typing_context: Any, word: Any) -> Any:
    """Return the index of the lowest set bit of a uint64 that isn't 0: LLVM's ``cttz``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], context.get_constant(types.boolean, True))

    return types.int64(types.uint64), generate


@intrinsic
def prefetch(typing_context: Any, array: Any, row: Any) -> Any:
    """Prefetch the first cache line of a row (uint64) of an array: LLVM's ``prefetch``."""
    if not isinstance(array, types.Array) or row != types.uint64:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        held = context.make_array(kind)(context, builder, arguments[0])
        first = [arguments[1]] + [context.get_constant(types.uint64, 0)] * (kind.ndim - 1)
        line = builder.bitcast(
            cgutils.get_item_pointer(context, builder, kind, held, first), ir.IntType(8).as_pointer()
        )
        number = ir.IntType(32)
        called = builder.module.declare_intrinsic(
            "llvm.prefetch", (line.type,), ir.FunctionType(ir.VoidType(), [line.type, number, number, number])
        )
        builder.call(called, [line, number(0), number(3), number(1)])  # for reading, kept in all caches, data
        return context.get_dummy_value()

    return types.void(array, row), generate


@kernel
def hamming_distance(query: np.ndarray, words: np.ndarray, item: int) -> np.int64:
    """Return the Hamming distance of one query ``(words,)`` to one item."""
    total = np.uint64(0)
    for plane in range(words.shape[0]):
        total += popcount(query[plane] ^ words[plane, item])
    return np.int64(total)


@kernel(inline="always")
def _four(word: np.uint64, plane: np.ndarray, item: int) -> np.uint64:
    return (
        popcount(word ^ plane[item])
        | popcount(word ^ plane[item + 16]) << np.uint64(16)
        | popcount(word ^ plane[item + 32]) << np.uint64(32)
        | popcount(word ^ plane[item + 48]) << np.uint64(48)
    )


@kernel
def packed_distances(query: np.ndarray, words: np.ndarray, start: int, packs: int, distances: np.ndarray) -> None:
    """Fill ``distances`` uint64 ``(16 * packs,)`` with those of the ``64 * packs`` items from ``start`` on."""
    stop = start + 64 * packs
    planes = words.shape[0]
    # Codes of up to 128 bits keep the sum in registers; longer ones add to the entries, two words at a time.
    if planes == 1:
        a = query[0]
        first = words[0, start:stop]
        for pack in range(packs):
            for j in range(16):
                distances[16 * pack + j] = _four(a, first, 64 * pack + j)
    elif planes == 2:
        a, b = query[0], query[1]
        first, second = words[0, start:stop], words[1, start:stop]
        for pack in range(packs):
            for j in range(16):
                item = 64 * pack + j
                distances[16 * pack + j] = _four(a, first, item) + _four(b, second, item)
    else:
        distances[: 16 * packs] = np.uint64(0)
        for plane in range(0, planes - 1, 2):
            a, b = query[plane], query[plane + 1]
            first, second = words[plane, start:stop], words[plane + 1, start:stop]
            for pack in range(packs):
                for j in range(16):
                    item = 64 * pack + j
                    distances[16 * pack + j] += _four(a, first, item) + _four(b, second, item)
        if planes % 2:
            a = query[planes - 1]
            first = words[planes - 1, start:stop]
            for pack in range(packs):
                for j in range(16):
                    distances[16 * pack + j] += _four(a, first, 64 * pack + j)


@kernel
def near_items(distances: np.ndarray, pack: int, limit: int) -> np.uint64:
    """Return a mask of a pack's 64 items: bit ``i`` is set where item ``i`` is at most ``limit`` (>= -1) away.

    With the top bit of each lane set, subtracting ``limit + 1`` clears it exactly where the distance is no larger.
    """
    bound = np.uint64(limit + 1) * ONES
    mask = np.uint64(0)
    for j in range(16):
        entry = distances[16 * pack + j]
        mask |= ((~((entry | TOPS) - bound) & TOPS) >> np.uint64(15)) << np.uint64(j)
    return mask


@kernel(inline="always")
def lane_of(distances: np.ndarray, pack: int, item: int) -> np.uint64:
    """Return the distance in the lane of item ``item`` (0 to 63) of a pack."""
    return (distances[16 * pack + (item & 15)] >> np.uint64(16 * (item >> 4))) & LANE
