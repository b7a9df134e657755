"""Sort keys: a uint64 with the value to sort by in its high half and the gallery row in its low half.

Sorting these integers gives the stable order: by value, ties by the smaller row.  The high half holds order bits: a
Hamming distance itself, or 32 bits whose order as integers is that of float32 values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from lshbench.kernels.compilation import copy, kernel

THIRTY_TWO = np.uint64(32)
LOW = np.uint64(0xFFFFFFFF)
SIGN = np.uint64(0x80000000)
RADIX = np.uint64(11)
DIGIT = np.uint64(2047)
INSERTION = 128
"""Number of keys up to which insertion sort is faster."""

RADIX_SORTED = 1024
"""Number of keys from which on they are radix sorted by rows, too."""


@intrinsic
def _float_bits(typing_context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.zext(
            builder.bitcast(arguments[0], context.get_value_type(types.uint32)), context.get_value_type(types.uint64)
        )

    return types.uint64(types.float32), generate


@intrinsic
def _bits_float(typing_context: Any, word: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(
            builder.trunc(arguments[0], context.get_value_type(types.uint32)), context.get_value_type(types.float32)
        )

    return types.float32(types.uint64), generate


@kernel
def sort_key(order: np.uint64, row: int) -> np.uint64:
    """Return the sort key of order bits and a row."""
    return order << THIRTY_TWO | np.uint64(row)


@kernel
def order_of(key: np.uint64) -> np.uint64:
    """Return the order bits of a sort key, its high half."""
    return key >> THIRTY_TWO


@kernel
def row_of(key: np.uint64) -> np.int64:
    """Return the row in a sort key, its low half."""
    return np.int64(key & LOW)


@kernel
def ascending(value: np.float32) -> np.uint64:
    """Return order bits that sort as float32 values do (-0 before 0)."""
    word = _float_bits(value)
    return (~word & LOW) if word & SIGN else word | SIGN


@kernel
def descending(value: np.float32) -> np.uint64:
    """Return order bits that sort float32 values from the largest to the smallest."""
    return ~ascending(value) & LOW


@kernel
def ascending_value(order: np.uint64) -> np.float32:
    """Return the value whose :func:`ascending` bits are given."""
    return _bits_float(order & ~SIGN if order & SIGN else ~order & LOW)


@kernel
def descending_value(order: np.uint64) -> np.float32:
    """Return the value whose :func:`descending` bits are given."""
    return ascending_value(~order & LOW)


@kernel
def radix_sort(keys: np.ndarray, spare: np.ndarray) -> np.ndarray:
    """Sort keys by their order bits, stably: three passes of eleven bits.

    Args:
        keys, spare: uint64 of one length; both are overwritten.

    Returns:
        The one of the two that holds the sorted keys.
    """
    size = len(keys)
    if size <= INSERTION:
        for i in range(1, size):
            key = keys[i]
            order = order_of(key)
            j = i - 1
            while j >= 0 and order_of(keys[j]) > order:
                keys[j + 1] = keys[j]
                j -= 1
            keys[j + 1] = key
        return keys
    counts = np.zeros((3, 2048), np.int32)
    for key in keys:
        for digit in range(3):
            counts[digit, (key >> (THIRTY_TWO + RADIX * np.uint64(digit))) & DIGIT] += 1
    for digit in range(3):
        place = np.int32(0)
        for value in range(2048):
            count = counts[digit, value]
            counts[digit, value] = place
            place += count
        shift = THIRTY_TWO + RADIX * np.uint64(digit)
        for key in keys:
            value = (key >> shift) & DIGIT
            spare[counts[digit, value]] = key
            counts[digit, value] += 1
        keys, spare = spare, keys
    return keys


@kernel
def sort_by_row(keys: np.ndarray, spare: np.ndarray) -> np.ndarray:
    """Sort keys by their rows, stably, as :func:`radix_sort` does by their order bits."""
    largest = np.uint64(0)
    for key in keys:
        largest |= key & LOW
    shift = np.uint64(0)
    while largest >> shift:
        counts = np.zeros(2049, np.int64)
        for key in keys:
            counts[((key >> shift) & DIGIT) + np.uint64(1)] += 1
        for value in range(1, 2049):
            counts[value] += counts[value - 1]
        for key in keys:
            value = (key >> shift) & DIGIT
            spare[counts[value]] = key
            counts[value] += 1
        keys, spare = spare, keys
        shift += RADIX
    return keys


@kernel
def sort_whole(keys: np.ndarray) -> None:
    """Sort keys in place, by order bits and then by row."""
    if len(keys) < RADIX_SORTED:
        keys.sort()
        return
    spare = np.empty_like(keys)
    by_row = sort_by_row(keys, spare)
    found = radix_sort(keys, spare) if by_row is keys else radix_sort(spare, keys)
    copy(found, keys)
