"""Frames: named tuples of arrays, passed to compiled code as numbers and addresses.

Passing twenty arrays from Python to a kernel takes two microseconds, where a search of hash tables takes about five.
The annotations of a named tuple's fields are the layout, for writing and for reading: ``int``, one of the kinds of
array below, or another such named tuple.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Generic, NamedTuple, TypeVar, get_args, get_type_hints

import numpy as np
from numba import from_dtype, types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array
from numba.np.numpy_support import as_dtype

Int32Vector = Annotated[np.ndarray, np.int32, 1]
Int64Vector = Annotated[np.ndarray, np.int64, 1]
UInt16Vector = Annotated[np.ndarray, np.uint16, 1]
UInt32Vector = Annotated[np.ndarray, np.uint32, 1]
UInt64Vector = Annotated[np.ndarray, np.uint64, 1]
Float32Vector = Annotated[np.ndarray, np.float32, 1]
Int32Matrix = Annotated[np.ndarray, np.int32, 2]
UInt8Matrix = Annotated[np.ndarray, np.uint8, 2]
UInt32Matrix = Annotated[np.ndarray, np.uint32, 2]
UInt64Matrix = Annotated[np.ndarray, np.uint64, 2]
Float32Matrix = Annotated[np.ndarray, np.float32, 2]
UInt32Cube = Annotated[np.ndarray, np.uint32, 3]

Held = TypeVar("Held", bound=NamedTuple)


@cache
def _layout(kind: Any) -> types.Type:
    """Return numba's type of an annotation."""
    if kind is int:
        return types.int64
    if hasattr(kind, "_fields"):
        hints = get_type_hints(kind, include_extras=True)
        return types.BaseTuple.from_types([_layout(hints[name]) for name in kind._fields], kind)
    _, element, dimensions = get_args(kind)
    return types.Array(from_dtype(np.dtype(element)), dimensions, "C")


@dataclass(frozen=True)
class Frame(Generic[Held]):
    """The ints of a named tuple and the addresses and shapes of its arrays, which the frame keeps alive.

    Attributes:
        numbers: int64; for each field the int itself, or the array's address and shape.
        held: the named tuple.
    """

    numbers: np.ndarray
    held: Held

    @classmethod
    def of(cls, held: Held) -> Frame[Held]:
        """Return the frame of a named tuple.

        Raises:
            ValueError: an array is of another kind than its field's annotation says, or not in C order.
        """
        kind = type(held)
        return cls(np.array([*_numbers(held, _layout(kind), kind.__name__)], np.int64), held)


def _numbers(value: Any, kind: types.Type, name: str) -> Iterator[int]:
    if isinstance(kind, types.BaseTuple):
        for field, own, own_kind in zip(value._fields, value, kind.types, strict=True):
            yield from _numbers(own, own_kind, f"{name}.{field}")
    elif isinstance(kind, types.Array):
        expected = as_dtype(kind.dtype)
        if value.ndim != kind.ndim or value.dtype != expected or not value.flags.c_contiguous:
            raise ValueError(
                f"{name} is {value.dtype} of {value.ndim} dimensions, strides {value.strides}; "
                f"expected {expected} of {kind.ndim} in C order"
            )
        yield value.ctypes.data
        yield from value.shape
    else:
        yield value


@intrinsic
def read_frame(typing_context: Any, numbers: Any, struct: Any) -> Any:
    """Return the named tuple, of the type given second, that the numbers of a frame describe."""
    whole = _layout(struct.instance_class)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = context.make_array(numbers)(context, builder, arguments[0]).data
        position = iter(range(1 << 20))

        def following() -> Any:
            return builder.load(builder.gep(place, [context.get_constant(types.intp, next(position))]))

        def build(kind: Any) -> Any:
            if isinstance(kind, types.BaseTuple):
                return context.make_tuple(builder, kind, [build(own) for own in kind.types])
            if not isinstance(kind, types.Array):
                return following()
            array = context.make_array(kind)(context, builder)
            address = builder.inttoptr(following(), array.data.type)
            shape = [following() for _ in range(kind.ndim)]
            size = context.get_constant(types.intp, as_dtype(kind.dtype).itemsize)
            strides = [builder.mul(shape[1], size), size] if kind.ndim == 2 else [size]
            populate_array(array, data=address, shape=shape, strides=strides, itemsize=size, meminfo=None)
            return array._getvalue()

        return build(whole)

    return whole(numbers, struct), generate


@intrinsic
def borrowed(typing_context: Any, value: Any) -> Any:
    """Return an array, or a named tuple of arrays and numbers, whose references are not counted; its caller keeps it.

    Counting them takes some 10 ns for each array whenever a tuple's fields are read.
    """

    def check(kind: Any) -> None:
        if isinstance(kind, types.BaseTuple):
            for own in kind.types:
                check(own)
        elif not isinstance(kind, (types.Array, types.Number, types.Boolean)):
            raise TypingError(f"references to {kind} have to be counted")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def build(kind: Any, held: Any) -> Any:
            if isinstance(kind, types.BaseTuple):
                fields = [build(own, builder.extract_value(held, place)) for place, own in enumerate(kind.types)]
                return context.make_tuple(builder, kind, fields)
            if not isinstance(kind, types.Array):
                return held
            array = context.make_array(kind)(context, builder, held)
            array.meminfo = cgutils.get_null_value(array.meminfo.type)
            array.parent = cgutils.get_null_value(array.parent.type)
            return array._getvalue()

        return build(value, arguments[0])

    check(value)
    return value(value), generate
