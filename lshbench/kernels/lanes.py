"""Operations on vectors of numbers, written in LLVM's own terms, as such loops aren't vectorised by themselves.

They are the same on every processor; those without vectors as long get several instructions.
"""

from __future__ import annotations

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

_WORD, _LONG, _SHORT = ir.IntType(32), ir.IntType(64), ir.IntType(16)
_SUMS, _SHORTS = ir.VectorType(_WORD, EIGHT), ir.VectorType(_SHORT, WINDOW)
_FLOATS = ir.VectorType(ir.FloatType(), LANES)


def _array(context: Any, builder: Any, kind: Any, value: Any) -> tuple[Any, list[Any]]:
    """Return the address and the shape of an array."""
    held = context.make_array(kind)(context, builder, value)
    return held.data, cgutils.unpack_tuple(builder, held.shape)


def _vector_at(builder: Any, address: Any, kind: Any) -> Any:
    return builder.bitcast(address, kind.as_pointer())


def _load(builder: Any, address: Any, alignment: int) -> Any:
    loaded = builder.load(address)
    loaded.align = alignment
    return loaded


def _repeated(builder: Any, value: Any, kind: Any) -> Any:
    """Return a vector that holds a value everywhere."""
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_WORD, 0))
    return builder.shuffle_vector(single, single, ir.Constant(ir.VectorType(_WORD, kind.count), [0] * kind.count))


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
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


def _sum(queries: int, context: Any, builder: Any, kinds: Any, arguments: Any) -> Any:
    """Write the sums of eight codes for a multiple of eight queries, as :func:`sum_eight` and its like say."""
    entries, _ = _array(context, builder, kinds[0], arguments[0])
    bytes_, (_, width) = _array(context, builder, kinds[1], arguments[1])
    written, (_, length) = _array(context, builder, kinds[3], arguments[3])
    entry_kind = ir.VectorType(_WORD, queries)
    entries = _vector_at(builder, entries, entry_kind)
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
                found = builder.add(found, _load(builder, builder.gep(entries, [entry]), 4))
            builder.store(found, total)
    sums = [builder.load(total) for total in totals]
    for start in range(0, queries, EIGHT):
        chosen = ir.Constant(_SUMS, list(range(start, start + EIGHT)))
        rows = [builder.shuffle_vector(total, total, chosen) for total in sums]
        for query, vector in enumerate(_transposed(builder, rows)):
            place = builder.gep(written, [builder.add(builder.mul(length, number(start + query)), arguments[4])])
            builder.store(vector, _vector_at(builder, place, _SUMS)).align = 4
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
        held, _ = _array(context, builder, signature.args[0], arguments[0])
        found = _load(builder, _vector_at(builder, builder.gep(held, [arguments[1]]), _SHORTS), 2)

        def counted(mask: Any) -> Any:
            return builder.zext(builder.ctpop(builder.bitcast(builder.and_(mask, inside), _SHORT)), _LONG)

        places = ir.Constant(_SHORTS, list(range(WINDOW)))
        inside = builder.icmp_signed("<", places, _repeated(builder, builder.trunc(arguments[2], _SHORT), _SHORTS))
        sought = _repeated(builder, arguments[3], _SHORTS)
        smaller = counted(builder.icmp_signed("<", found, sought))
        equal = counted(builder.icmp_signed("==", found, sought))
        return builder.or_(smaller, builder.shl(equal, ir.Constant(_LONG, 32)))

    return types.int64(numbers, types.int64, types.int64, types.int16), generate


def _similarities(context: Any, builder: Any, kinds: Any, arguments: Any, start: Any) -> Any:
    """Return the products of 32 numbers each of the first two arrays, from ``start`` on."""
    sides = []
    for kind, argument in zip(kinds[:2], arguments[:2], strict=True):
        held, _ = _array(context, builder, kind, argument)
        sides.append(_load(builder, _vector_at(builder, builder.gep(held, [start]), _FLOATS), 4))
    return builder.fmul(*sides)


@intrinsic
def greater_of_32(typing_context: Any, products: Any, inverse_norms: Any, start: Any, least: Any) -> Any:
    """Return which of 32 similarities exceed a value: bit ``j`` is set for the ``j``-th from ``start`` on.

    Args:
        products, inverse_norms: float32, whose products are the similarities; 32 of each are read.
        least: float32.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found = _similarities(context, builder, signature.args, arguments, arguments[2])
        mask = builder.fcmp_ordered(">", found, _repeated(builder, arguments[3], _FLOATS))
        return builder.zext(builder.bitcast(mask, _WORD), _LONG)

    return types.uint64(products, inverse_norms, types.int64, types.float32), generate


@intrinsic
def greatest_of_32(typing_context: Any, products: Any, inverse_norms: Any, start: Any) -> Any:
    """Return the greatest of 32 similarities.

    Args:
        products, inverse_norms: float32, whose products are the similarities; 32 of each from ``start`` on are read.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found, size = _similarities(context, builder, signature.args, arguments, arguments[2]), LANES
        while size > 1:
            size //= 2
            halves = [
                builder.shuffle_vector(found, found, ir.Constant(ir.VectorType(_WORD, size), list(range(first, last))))
                for first, last in ((0, size), (size, 2 * size))
            ]
            found = builder.select(builder.fcmp_ordered(">", *halves), *halves)
        return builder.extract_element(found, ir.Constant(_WORD, 0))

    return types.float32(products, inverse_norms, types.int64), generate
