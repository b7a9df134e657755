"""Products of narrow vectors, written in LLVM's own terms: of one query with rows, and of many with a packed gallery.

Each is added up in an order that depends on its length alone: with one query, in that of a loop that is vectorised by
sixteen; with many, from the first number to the last, as OpenBLAS does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from lshbench.kernels.compilation import kernel
from lshbench.kernels.lanes import EIGHT, array_of, load, reduced_rows, repeated, transposed, vector_at

PANEL_ROWS = 16
"""Numbers of a vector, and gallery rows of a panel."""

NARROW = 64
"""Numbers of a row that is multiplied with one query together with others."""

FOUR = 4
"""Such rows at once."""

SIX = 6
"""Queries that are multiplied with a panel at once: with more, sums don't fit into registers of eight numbers."""

_WORD, _LONG, _BYTE = ir.IntType(32), ir.IntType(64), ir.IntType(8)
_VECTOR, _HALF = (ir.VectorType(ir.FloatType(), size) for size in (PANEL_ROWS, EIGHT))
_FUSED = {"flags": ["contract"]}


def _number(value: int) -> Any:
    return ir.Constant(_LONG, value)


def _vector_from(builder: Any, address: Any, place: Any) -> Any:
    """Return the vector that stands ``place`` numbers behind an address."""
    return load(builder, vector_at(builder, builder.gep(address, [place]), _VECTOR), 4)


@intrinsic
def write_narrow_products(typing_context: Any, query: Any, rows: Any, first: Any, products: Any) -> Any:
    """Write the products of a query with four rows of 64 numbers.

    The sums of four rows end up side by side in one vector, with a fraction of the instructions for one row each.

    Args:
        query: float32 ``(64,)``.
        rows: float32 ``(n, 64)``, of which four from ``first`` on are read; a row's numbers are contiguous.
        products: float32 ``(n,)``, written from ``first`` on.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        asked, _ = array_of(context, builder, signature.args[0], arguments[0])
        written, _ = array_of(context, builder, signature.args[3], arguments[3])
        held = context.make_array(signature.args[1])(context, builder, arguments[1])
        stride = cgutils.unpack_tuple(builder, held.strides)[0]
        start = builder.bitcast(held.data, _BYTE.as_pointer())

        def products_of(row: int) -> list[Any]:
            offset = builder.mul(builder.add(arguments[2], _number(row)), stride)
            own = builder.bitcast(builder.gep(start, [offset]), ir.FloatType().as_pointer())
            return [builder.fmul(_vector_from(builder, own, place), part) for place, part in parts]

        parts = [(place, _vector_from(builder, asked, place)) for place in map(_number, range(0, NARROW, PANEL_ROWS))]
        sums = []
        for row in range(FOUR):
            first, second, third, fourth = products_of(row)
            sums.append(builder.fadd(builder.fadd(first, second), builder.fadd(third, fourth)))
        found = reduced_rows(builder, sums, lambda builder, left, right: builder.fadd(left, right))
        builder.store(found, vector_at(builder, builder.gep(written, [arguments[2]]), found.type)).align = 4
        return context.get_dummy_value()

    return types.void(query, rows, types.int64, products), generate


@intrinsic
def _write_transposed(
    typing_context: Any, rows: Any, row: Any, column: Any, panels: Any, panel: Any, place: Any
) -> Any:
    """Write eight numbers of each of eight rows to a panel, whose rows from ``place`` on they become."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        held = context.make_array(signature.args[0])(context, builder, arguments[0])
        stride = cgutils.unpack_tuple(builder, held.strides)[0]
        packed, (_, height, _) = array_of(context, builder, signature.args[3], arguments[3])
        start = builder.bitcast(builder.gep(held.data, [arguments[2]]), _BYTE.as_pointer())
        vectors = []
        for i in range(EIGHT):
            offset = builder.mul(builder.add(arguments[1], _number(i)), stride)
            vectors.append(load(builder, vector_at(builder, builder.gep(start, [offset]), _HALF), 4))
        first = builder.add(builder.mul(arguments[4], height), arguments[2])
        for j, vector in enumerate(transposed(builder, vectors)):
            into = builder.add(builder.mul(builder.add(first, _number(j)), _number(PANEL_ROWS)), arguments[5])
            builder.store(vector, vector_at(builder, builder.gep(packed, [into]), _HALF)).align = 4
        return context.get_dummy_value()

    return types.void(rows, types.int64, types.int64, panels, types.int64, types.int64), generate


@kernel(parallel=True)
def pack(rows: np.ndarray, inverse_norms: np.ndarray, panels: np.ndarray) -> None:
    """Fill panels float32 ``(p, d + 1, 16)`` with rows ``(n, d)`` and their norms, sixteen side by side.

    Zeros stand beyond the last.
    """
    whole = rows.shape[1] // EIGHT * EIGHT if rows.strides[1] == rows.itemsize else 0
    for panel in prange(len(panels)):
        first = panel * PANEL_ROWS
        held = min(PANEL_ROWS, len(rows) - first)
        done = whole if held == PANEL_ROWS else 0
        for j in range(0, done, EIGHT):
            _write_transposed(rows, first, j, panels, panel, 0)
            _write_transposed(rows, first + EIGHT, j, panels, panel, EIGHT)
        for j in range(done, rows.shape[1]):
            for i in range(PANEL_ROWS):
                panels[panel, j, i] = rows[first + i, j] if i < held else np.float32(0)
        for i in range(PANEL_ROWS):
            panels[panel, rows.shape[1], i] = inverse_norms[first + i] if i < held else np.float32(0)


@intrinsic
def write_similarities(
    typing_context: Any, queries: Any, query: Any, panels: Any, panel: Any, similarities: Any, row: Any
) -> Any:
    """Write the similarities of six queries to a panel's sixteen rows: their products, times the rows' inverse norms.

    Args:
        queries: float32 ``(q, d)``, of which six from ``query`` on are read.
        panels: float32 ``(p, d + 1, 16)`` (:func:`pack`), of which ``panel`` is read.
        similarities: float32 ``(m, 16 p)``, written from ``row`` and from the panel's first column on.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        asked, (_, width) = array_of(context, builder, signature.args[0], arguments[0])
        packed, (_, height, _) = array_of(context, builder, signature.args[2], arguments[2])
        written, (_, length) = array_of(context, builder, signature.args[4], arguments[4])
        own = builder.gep(packed, [builder.mul(arguments[3], builder.mul(height, _number(PANEL_ROWS)))])
        each = [builder.gep(asked, [builder.mul(width, builder.add(arguments[1], _number(i)))]) for i in range(SIX)]
        sums = [cgutils.alloca_once(builder, _VECTOR) for _ in range(SIX)]
        for total in sums:
            builder.store(ir.Constant(_VECTOR, [0.0] * PANEL_ROWS), total)
        with cgutils.for_range(builder, width) as loop:
            found = _vector_from(builder, own, builder.mul(loop.index, _number(PANEL_ROWS)))
            for numbers, total in zip(each, sums, strict=True):
                value = repeated(builder, builder.load(builder.gep(numbers, [loop.index])), _VECTOR)
                product = builder.fmul(value, found, **_FUSED)
                builder.store(builder.fadd(builder.load(total), product, **_FUSED), total)
        norms = _vector_from(builder, own, builder.mul(width, _number(PANEL_ROWS)))
        column = builder.mul(arguments[3], _number(PANEL_ROWS))
        for i, total in enumerate(sums):
            place = builder.add(builder.mul(length, builder.add(arguments[5], _number(i))), column)
            found = builder.fmul(builder.load(total), norms)
            builder.store(found, vector_at(builder, builder.gep(written, [place]), _VECTOR)).align = 4
        return context.get_dummy_value()

    return types.void(queries, types.int64, panels, types.int64, similarities, types.int64), generate
