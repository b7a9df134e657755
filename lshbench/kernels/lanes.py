"""Operations on vectors of numbers, written in LLVM's own terms, as such loops aren't vectorised by themselves.

They are the same on every processor; those without vectors as long get several instructions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

EIGHT = 8
"""Queries whose sums are added up at once, and items that take part."""

SIXTEEN = 16
"""Queries whose sums are added up at once where there are as many."""

WINDOW = 16
"""Numbers that are compared at once."""

LANES = 32
"""Similarities that are compared at once."""

WINDOWS = 4
"""Windows of as many similarities that are looked at together."""

_WORD, _LONG, _SHORT = ir.IntType(32), ir.IntType(64), ir.IntType(16)
_SUMS, _SHORTS = ir.VectorType(_WORD, EIGHT), ir.VectorType(_SHORT, WINDOW)
_FLOATS = ir.VectorType(ir.FloatType(), LANES)


def array_of(context: Any, builder: Any, kind: Any, value: Any) -> tuple[Any, list[Any]]:
    """Return the address and the shape of an array."""
    held = context.make_array(kind)(context, builder, value)
    return held.data, cgutils.unpack_tuple(builder, held.shape)


def vector_at(builder: Any, address: Any, kind: Any) -> Any:
    return builder.bitcast(address, kind.as_pointer())


def load(builder: Any, address: Any, alignment: int) -> Any:
    loaded = builder.load(address)
    loaded.align = alignment
    return loaded


def repeated(builder: Any, value: Any, kind: Any) -> Any:
    """Return a vector that holds a value everywhere."""
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_WORD, 0))
    return builder.shuffle_vector(single, single, ir.Constant(ir.VectorType(_WORD, kind.count), [0] * kind.count))


def transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Return eight vectors of eight with rows and columns exchanged: in blocks of one, two and four."""
    for size in (1, 2, 4):
        exchanged = list(rows)
        for i in range(EIGHT):
            if not i & size:
                upper, lower = rows[i], rows[i + size]
                left = [j if not j & size else EIGHT + j - size for j in range(EIGHT)]
                right = [j + size if not j & size else EIGHT + j for j in range(EIGHT)]
                exchanged[i] = builder.shuffle_vector(upper, lower, ir.Constant(_SUMS, left))
                exchanged[i + size] = builder.shuffle_vector(upper, lower, ir.Constant(_SUMS, right))
        rows = exchanged
    return rows


def reduced_rows(builder: Any, rows: list[Any], combine: Callable[[Any, Any, Any], Any]) -> Any:
    """Return a vector of one number for each of one, two or four vectors, whose halves are combined until one is left.

    The halves of two vectors are combined in one while there are two, which takes fewer instructions than one by one.
    """
    size = rows[0].type.count
    while size > 1:
        rows = [_combined_halves(builder, rows[i : i + 2], size, combine) for i in range(0, len(rows), 2)]
        size //= 2
    return rows[0]


def _combined_halves(builder: Any, rows: list[Any], size: int, combine: Callable[[Any, Any, Any], Any]) -> Any:
    """Return the combined halves of each ``size`` numbers of one or two vectors."""
    total = sum(row.type.count for row in rows)
    kind = ir.VectorType(_WORD, total // 2)
    lower = [i for i in range(total) if i % size < size // 2]
    upper = [i for i in range(total) if i % size >= size // 2]
    halves = [builder.shuffle_vector(rows[0], rows[-1], ir.Constant(kind, places)) for places in (lower, upper)]
    return combine(builder, *halves)


def _sum(queries: int, context: Any, builder: Any, kinds: Any, arguments: Any) -> Any:
    """Write the sums of eight codes for a multiple of eight queries, as :func:`sum_eight` and its like say."""
    entries, _ = array_of(context, builder, kinds[0], arguments[0])
    bytes_, (_, width) = array_of(context, builder, kinds[1], arguments[1])
    written, (_, length) = array_of(context, builder, kinds[3], arguments[3])
    entry_kind = ir.VectorType(_WORD, queries)
    entries = vector_at(builder, entries, entry_kind)
    first = builder.gep(bytes_, [builder.mul(arguments[2], width)])

    def number(value: int) -> Any:
        return ir.Constant(_LONG, value)

    totals = [cgutils.alloca_once(builder, entry_kind) for _ in range(EIGHT)]
    for total in totals:
        builder.store(ir.Constant(entry_kind, [0] * queries), total)
    with cgutils.for_range(builder, width) as loop:
        base = builder.shl(loop.index, number(5))
        for item, total in enumerate(totals):
            place = builder.gep(first, [builder.add(builder.mul(width, number(item)), loop.index)])
            byte = builder.zext(builder.load(place), _LONG)
            upper = builder.add(base, builder.lshr(byte, number(4)))
            lower = builder.add(base, builder.add(builder.and_(byte, number(15)), number(16)))
            found = builder.load(total)
            for entry in (upper, lower):
                found = builder.add(found, load(builder, builder.gep(entries, [entry]), 4))
            builder.store(found, total)
    sums = [builder.load(total) for total in totals]
    for start in range(0, queries, EIGHT):
        chosen = ir.Constant(_SUMS, list(range(start, start + EIGHT)))
        rows = [builder.shuffle_vector(total, total, chosen) for total in sums]
        for query, vector in enumerate(transposed(builder, rows)):
            place = builder.gep(written, [builder.add(builder.mul(length, number(start + query)), arguments[4])])
            builder.store(vector, vector_at(builder, place, _SUMS)).align = 4
    return context.get_dummy_value()


@intrinsic
def sum_eight(typing_context: Any, table: Any, codes: Any, row: Any, sums: Any, column: Any) -> Any:
    """Write the sums of eight codes for eight queries: what each half of each of a code's bytes adds.

    Args:
        table: uint32 ``(2 bytes, 16, 8)``, what each value of a half byte adds for each query, upper halves first.
        codes: uint8 ``(n, bytes)``, of which those from ``row`` on are read.
        sums: uint32 ``(8, m)``, written from ``column`` on.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _sum(EIGHT, context, builder, signature.args, arguments)

    return types.void(table, codes, row, sums, column), generate


@intrinsic
def sum_sixteen(typing_context: Any, table: Any, codes: Any, row: Any, sums: Any, column: Any) -> Any:
    """Write the sums of eight codes for sixteen queries, like :func:`sum_eight`: in two thirds of the time a query.

    Args:
        table: uint32 ``(2 bytes, 16, 16)``.
        codes: uint8 ``(n, bytes)``.
        sums: uint32 ``(16, m)``.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _sum(SIXTEEN, context, builder, signature.args, arguments)

    return types.void(table, codes, row, sums, column), generate


@intrinsic
def count_in_window(typing_context: Any, numbers: Any, start: Any, size: Any, value: Any) -> Any:
    """Count, of up to sixteen numbers, those smaller than a value and, shifted by 32 bits, those equal to it.

    Args:
        numbers: uint16, below 2^15; sixteen from ``start`` on are read.
        size: how many of these count.
        value: int16.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        held, _ = array_of(context, builder, signature.args[0], arguments[0])
        found = load(builder, vector_at(builder, builder.gep(held, [arguments[1]]), _SHORTS), 2)

        def counted(mask: Any) -> Any:
            return builder.zext(builder.ctpop(builder.bitcast(builder.and_(mask, inside), _SHORT)), _LONG)

        places = ir.Constant(_SHORTS, list(range(WINDOW)))
        inside = builder.icmp_signed("<", places, repeated(builder, builder.trunc(arguments[2], _SHORT), _SHORTS))
        sought = repeated(builder, arguments[3], _SHORTS)
        smaller = counted(builder.icmp_signed("<", found, sought))
        equal = counted(builder.icmp_signed("==", found, sought))
        return builder.or_(smaller, builder.shl(equal, ir.Constant(_LONG, 32)))

    return types.int64(numbers, types.int64, types.int64, types.int16), generate


def _similarities(context: Any, builder: Any, kinds: Any, arguments: Any, start: Any) -> Any:
    """Return the products of 32 numbers each of the first two arrays, from ``start`` on, or the first's alone."""
    sides = []
    for kind, argument in zip(kinds[:2], arguments[:2], strict=True):
        if kind != types.none:
            held, _ = array_of(context, builder, kind, argument)
            sides.append(load(builder, vector_at(builder, builder.gep(held, [start]), _FLOATS), 4))
    return builder.fmul(*sides) if len(sides) > 1 else sides[0]


def _greater(builder: Any, left: Any, right: Any) -> Any:
    """Return a vector of the greater of two vectors' numbers each."""
    return builder.select(builder.fcmp_ordered(">", left, right), left, right)


@intrinsic
def greater_of_32(typing_context: Any, products: Any, inverse_norms: Any, start: Any, least: Any) -> Any:
    """Return which of 32 similarities exceed a value: bit ``j`` is set for the ``j``-th from ``start`` on.

    Args:
        products, inverse_norms: float32, whose products are the similarities, 32 of each from ``start`` on are read;
            None where ``products`` are.
        least: float32.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found = _similarities(context, builder, signature.args, arguments, arguments[2])
        mask = builder.fcmp_ordered(">", found, repeated(builder, arguments[3], _FLOATS))
        return builder.zext(builder.bitcast(mask, _WORD), _LONG)

    return types.uint64(products, inverse_norms, types.int64, types.float32), generate


@intrinsic
def greatest_of_32(typing_context: Any, products: Any, inverse_norms: Any, start: Any) -> Any:
    """Return the greatest of 32 similarities.

    Args:
        products, inverse_norms: float32, whose products are the similarities, 32 of each from ``start`` on are read;
            None where ``products`` are.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found = reduced_rows(
            builder, [_similarities(context, builder, signature.args, arguments, arguments[2])], _greater
        )
        return builder.extract_element(found, ir.Constant(_WORD, 0))

    return types.float32(products, inverse_norms, types.int64), generate


@intrinsic
def write_greatest_of_windows(
    typing_context: Any, products: Any, inverse_norms: Any, start: Any, greatest: Any, window: Any
) -> Any:
    """Write the greatest similarity of each of four times 32, in fewer instructions than four times one.

    Args:
        products, inverse_norms: float32, whose products are the similarities, 128 of each from ``start`` on are read;
            None where ``products`` are.
        greatest: float32, written from ``window`` on.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows = []
        for number in range(0, WINDOWS * LANES, LANES):
            first = builder.add(arguments[2], ir.Constant(_LONG, number))
            rows.append(_similarities(context, builder, signature.args, arguments, first))
        found = reduced_rows(builder, rows, _greater)
        written, _ = array_of(context, builder, signature.args[3], arguments[3])
        address = vector_at(builder, builder.gep(written, [arguments[4]]), found.type)
        builder.store(found, address).align = 4
        return context.get_dummy_value()

    return types.void(products, inverse_norms, types.int64, greatest, types.int64), generate
