"""The two loops that read rows of node tables along edges, emitted so that everything stays in registers.

Compilers do not vectorise a short dot product inside a loop over edges. ``dot_rows`` forms one vector of dot products
for as many edges as a vector has lanes, ``sum_rows`` keeps several sums of rows at a time, for one chain of additions
waits for each. Row lengths are multiples of ``MULTIPLE``.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

from musegnn.kernels.edge_attention.impl.simd import (
    INT32,
    INT64,
    array_data,
    constant,
    multiply_add,
    pointer,
    splat,
    vector_type,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MULTIPLE = 16
SUMS = 8


class _Emitter:
    """Loads and stores of one function under construction."""

    def __init__(self, context: Any, builder: Any, dtype: Any, dim: int) -> None:  # Any: numba publishes no types
        self.context = context
        self.builder = builder
        self.kind = vector_type(dtype)
        self.align = dtype.bitwidth // 8
        self.dim = dim
        self.offsets = range(0, dim, self.kind.count)

    def load(self, data: Any, at: Any, offset: int = 0) -> Any:
        return self.builder.load(self._place(data, at, offset), align=self.align)

    def store(self, value: Any, data: Any, at: Any, offset: int = 0) -> None:
        self.builder.store(value, self._place(data, at, offset), align=self.align)

    def shuffle(self, x: Any, y: Any, order: list[int]) -> Any:
        return self.builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(INT32, len(order)), order))

    def _place(self, data: Any, at: Any, offset: int) -> Any:
        place = self.builder.add(at, ir.Constant(at.type, offset)) if offset else at
        return pointer(self.builder, data, place, self.kind)


def _check(floats: list[Any], indices: list[Any], dim: Any) -> None:
    arrays = [*floats, *indices]
    same = all(isinstance(t, types.Array) and t.ndim == 1 and t.layout == "C" for t in arrays)
    if not same or len({t.dtype for t in floats}) != 1 or floats[0].dtype not in (types.float32, types.float64):
        msg = f"expected contiguous vectors of one float type, got {floats}"
        raise TypingError(msg)
    if any(index.dtype != types.int64 for index in indices):
        msg = f"expected int64 indices, got {indices}"
        raise TypingError(msg)
    if not isinstance(dim, types.IntegerLiteral) or dim.literal_value % MULTIPLE:
        msg = f"expected a constant multiple of {MULTIPLE} as dimension, got {dim}"
        raise TypingError(msg)


def _type_dot_rows(
    typing_context: Any, out: Any, out_at: Any, x: Any, x_at: Any, rows: Any, rows_at: Any, index: Any, start: Any,
    stop: Any, dim: Any,
) -> tuple[Any, Callable[..., Any]]:  # fmt: skip
    """Set ``out[out_at + e - start]`` to the dot product of ``x[x_at:][:dim]`` and row ``index[e]``."""
    _check([out, x, rows], [index], dim)
    int64 = types.int64
    signature = types.void(out, int64, x, int64, rows, int64, index, int64, int64, dim)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        size = dim.literal_value
        emit = _Emitter(context, builder, out.dtype, size)
        kinds = signature.args
        out_data, x_data, rows_data, index_data = (
            array_data(context, builder, kinds[n], args[n]) for n in (0, 2, 4, 6)
        )
        out_at, x_at, rows_at, start, stop = (args[n] for n in (1, 3, 5, 7, 8))
        x_vectors = [emit.load(x_data, x_at, offset) for offset in emit.offsets]
        rows_data = builder.gep(rows_data, [rows_at])
        out_data = builder.gep(out_data, [builder.sub(out_at, start)])

        def products(e: Any) -> Any:
            node = builder.load(builder.gep(index_data, [e]))
            row_at = builder.mul(node, ir.Constant(node.type, size))
            result = builder.fmul(x_vectors[0], emit.load(rows_data, row_at))
            for offset, x_vector in zip(emit.offsets[1:], x_vectors[1:], strict=True):
                result = multiply_add(builder, x_vector, emit.load(rows_data, row_at, offset), result)
            return result

        def dots(e: Any, width: int, first: int = 0, step: int = 1) -> Any:
            """Return ``width`` lanes for each of the edges ``first, first + step, ...``, whose sum is the product."""
            lanes = emit.kind.count
            if width == lanes:
                return products(builder.add(e, ir.Constant(e.type, first)))
            x, y = (dots(e, 2 * width, start, 2 * step) for start in (first, first + step))
            keep = [lane if lane % (2 * width) < width else lane + lanes for lane in range(lanes)]
            swap = [lane + width if lane % (2 * width) < width else lane + lanes - width for lane in range(lanes)]
            return builder.fadd(emit.shuffle(x, y, keep), emit.shuffle(x, y, swap))

        lanes, at = emit.kind.count, start
        for group in (lanes, 4, 1):
            last = builder.add(at, builder.and_(builder.sub(stop, at), ir.Constant(at.type, -group)))
            with cgutils.for_range_slice(builder, at, last, ir.Constant(at.type, group), intp=at.type) as (e, _):
                value = dots(e, lanes // group)
                width = lanes // group
                while width > 1:
                    width //= 2
                    value = builder.fadd(value, emit.shuffle(value, value, [lane ^ width for lane in range(lanes)]))
                if group < lanes:
                    value = emit.shuffle(value, value, list(range(0, lanes, lanes // group)))
                place = builder.bitcast(builder.gep(out_data, [e]), value.type.as_pointer())
                builder.store(value, place, align=emit.align)
            at = last
        return context.get_dummy_value()

    return signature, generate


def _type_sum_rows(
    typing_context: Any, out: Any, out_at: Any, is_first: Any, weight: Any, weight_at: Any, rows: Any, rows_at: Any,
    index: Any, start: Any, stop: Any, dim: Any,
) -> tuple[Any, Callable[..., Any]]:  # fmt: skip
    """Add to ``out[out_at:][:dim]``, or set it if first, the rows ``index[e]`` times ``weight[weight_at + e]``."""
    _check([out, weight, rows], [index], dim)
    int64 = types.int64
    signature = types.void(out, int64, types.boolean, weight, int64, rows, int64, index, int64, int64, dim)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = _Emitter(context, builder, out.dtype, dim.literal_value)
        kinds = signature.args
        out_data, weight_data, rows_data, index_data = (
            array_data(context, builder, kinds[n], args[n]) for n in (0, 3, 5, 7)
        )
        table = (
            builder.gep(out_data, [args[1]]),
            builder.gep(weight_data, [args[4]]),
            builder.gep(rows_data, [args[6]]),
        )
        _emit_sums(emit, [table], args[2], index_data, index_data, args[8], args[9], is_placed=False)
        return context.get_dummy_value()

    return signature, generate


def _type_sum_placed_rows(
    typing_context: Any, out_x: Any, out_y: Any, out_at: Any, is_first: Any, pairs: Any, pairs_at: Any, place: Any,
    rows_x: Any, rows_y: Any, rows_at: Any, index: Any, start: Any, stop: Any, dim: Any,
) -> tuple[Any, Callable[..., Any]]:  # fmt: skip
    """Do the same for two tables at a time, with the pairs of weights ``pairs[pairs_at + 2 * place[e]:][:2]``."""
    _check([out_x, out_y, pairs, rows_x, rows_y], [place, index], dim)
    int64 = types.int64
    signature = types.void(
        out_x, out_y, int64, types.boolean, pairs, int64, place, rows_x, rows_y, int64, index, int64, int64, dim
    )  # fmt: skip

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = _Emitter(context, builder, out_x.dtype, dim.literal_value)
        kinds = signature.args
        x, y, pairs_data, place_data, rows_x, rows_y, index_data = (
            array_data(context, builder, kinds[n], args[n]) for n in (0, 1, 4, 6, 7, 8, 10)
        )
        pairs_data = builder.gep(pairs_data, [args[5]])
        tables = [
            (
                builder.gep(out, [args[2]]),
                builder.gep(pairs_data, [ir.Constant(INT64, n)]),
                builder.gep(rows, [args[9]]),
            )
            for n, (out, rows) in enumerate(((x, rows_x), (y, rows_y)))
        ]
        _emit_sums(emit, tables, args[3], place_data, index_data, args[11], args[12], is_placed=True)
        return context.get_dummy_value()

    return signature, generate


def _emit_sums(
    emit: _Emitter, tables: list[tuple[Any, Any, Any]], is_first: Any, place_data: Any, index_data: Any, start: Any,
    stop: Any, *, is_placed: bool,
) -> None:  # fmt: skip
    """Add weighted rows of each table (sums, weights, rows), as many columns at a time as there are registers for."""
    builder = emit.builder
    one = ir.Constant(INT64, 1)
    sums_at_a_time = max(1, SUMS // len(tables))
    for first in range(0, len(emit.offsets), sums_at_a_time):
        offsets = emit.offsets[first : first + sums_at_a_time]
        columns = [(table, offset) for table in range(len(tables)) for offset in offsets]
        ways = 1 << max(0, (SUMS // len(columns)).bit_length() - 1)
        sums = [
            [cgutils.alloca_once(builder, emit.kind) for _ in columns]  # type: ignore[no-untyped-call]
            for _ in range(ways)
        ]
        for sum_ in itertools.chain(*sums):
            builder.store(constant(0.0, emit.kind), sum_)

        def add_row(e: Any, way: list[Any], columns: list[tuple[int, int]] = columns) -> None:
            node = builder.load(builder.gep(index_data, [e]))
            row_at = builder.mul(node, ir.Constant(INT64, emit.dim))
            at = builder.shl(builder.load(builder.gep(place_data, [e])), one) if is_placed else e
            factors = [splat(builder, builder.load(builder.gep(weight, [at])), emit.kind) for _, weight, _ in tables]
            for sum_, (table, offset) in zip(way, columns, strict=True):
                row = emit.load(tables[table][2], row_at, offset)
                builder.store(multiply_add(builder, factors[table], row, builder.load(sum_)), sum_)

        whole = builder.add(start, builder.and_(builder.sub(stop, start), ir.Constant(INT64, -ways)))
        with cgutils.for_range_slice(builder, start, whole, ir.Constant(INT64, ways), intp=INT64) as (e, _):
            for k, way in enumerate(sums):
                add_row(builder.add(e, ir.Constant(INT64, k)), way)
        with cgutils.for_range_slice(builder, whole, stop, one, intp=INT64) as (e, _):
            add_row(e, sums[0])
        for column, (table, offset) in enumerate(columns):
            parts = [builder.load(way[column]) for way in sums]
            while len(parts) > 1:
                half = len(parts) // 2
                parts = [builder.fadd(x, y) for x, y in zip(parts[:half], parts[half:], strict=True)]
            out, at = tables[table][0], ir.Constant(INT64, offset)
            before = builder.select(is_first, constant(0.0, emit.kind), emit.load(out, at))
            emit.store(builder.fadd(before, parts[0]), out, at)


def _type_prefetch(typing_context: Any, x: Any, at: Any, n: Any) -> tuple[Any, Callable[..., Any]]:
    """Ask for the n cache lines from ``x[at]`` on, which need not exist."""
    signature = types.void(x, types.int64, n)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, INT32, INT32, INT32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")  # type: ignore[no-untyped-call]
        place = builder.gep(array_data(context, builder, x, args[0]), [args[1]])
        first = builder.bitcast(place, byte)
        for line in range(n.literal_value):
            target = builder.gep(first, [ir.Constant(INT64, 64 * line)])
            builder.call(function, [target, *(ir.Constant(INT32, option) for option in (0, 3, 1))])
        return context.get_dummy_value()

    return signature, generate


# Any: for numba these are functions of compiled code, for a type checker their typing functions.
dot_rows: Any = intrinsic(prefer_literal=True)(_type_dot_rows)
sum_rows: Any = intrinsic(prefer_literal=True)(_type_sum_rows)
prefetch: Any = intrinsic(prefer_literal=True)(_type_prefetch)
sum_placed_rows: Any = intrinsic(prefer_literal=True)(_type_sum_placed_rows)
