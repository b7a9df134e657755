"""Sort keys: a float32 and a gallery row in one uint64, so that one integer sort gives the stable order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

THIRTY_TWO = np.uint64(32)
LOW = np.uint64(0xFFFFFFFF)
SIGN = np.uint64(0x80000000)
RADIX = np.uint64(11)
DIGIT = np.uint64(2047)
SMALL = 128


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


@njit(cache=True)
def ascending_key(value: np.float32) -> np.uint64:
    """Return 32 bits that order as float32 values do (-0 before 0)."""
    word = _float_bits(value)
    return (~word & LOW) if word & SIGN else word | SIGN


@njit(cache=True)
def descending_key(value: np.float32) -> np.uint64:
    """Return 32 bits that order against float32 values."""
    return ~ascending_key(value) & LOW


@njit(cache=True)
def key_value(key: np.uint64) -> np.float32:
    """Return the value whose :func:`descending_key` this is."""
    word = ~key & LOW
    return _bits_float(word & ~SIGN if word & SIGN else ~word & LOW)


@njit(cache=True)
def radix_sort(keys: np.ndarray, spare: np.ndarray) -> np.ndarray:
    """Return keys in order of their high halves, equal ones in the order given: three passes of eleven bits.

    Args:
        keys, spare: uint64 of one length; both are overwritten, and one of them is returned.
    """
    size = len(keys)
    if size <= SMALL:
        for i in range(1, size):
            key = keys[i]
            high = key >> THIRTY_TWO
            j = i - 1
            while j >= 0 and keys[j] >> THIRTY_TWO > high:
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
