"""Vector loops over gathered rows, written in LLVM so that accumulators stay in registers.

The compiler does not vectorise a short dot product inside a loop over edges. These intrinsics emit generic LLVM
vectors instead, which are legal on every target. All arrays are one-dimensional; ``dim`` is a compile-time constant.

Legend: e runs over ``start..stop``; row e is ``rows[rows_at + index[e] * dim :][:dim]``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic, overload

if TYPE_CHECKING:
    from collections.abc import Callable

VECTOR_BYTES = 64
FAST = ("reassoc", "contract", "nsz")


def _chunks(dim: int, item_bytes: int) -> list[tuple[int, int]]:
    """Split ``dim`` into (offset, length) vectors of at most VECTOR_BYTES."""
    width = VECTOR_BYTES // item_bytes
    return [(at, min(width, dim - at)) for at in range(0, dim, width)]


class _Emitter:
    """Loads, stores and arithmetic of one function under construction."""

    def __init__(self, context: Any, builder: Any, array_type: types.Array) -> None:  # Any: numba publishes no types
        self.context = context
        self.builder = builder
        self.item = context.get_value_type(array_type.dtype)
        self.item_bytes = array_type.dtype.bitwidth // 8

    def data(self, array_type: types.Array, value: Any) -> Any:
        return self.context.make_array(array_type)(self.context, self.builder, value).data

    def vector(self, length: int) -> ir.VectorType:
        return ir.VectorType(self.item, length)

    def load(self, data: Any, at: Any, offset: int, length: int) -> Any:
        return self.builder.load(self._vector_pointer(data, at, offset, length), align=self.item_bytes)

    def store(self, value: Any, data: Any, at: Any, offset: int, length: int) -> None:
        self.builder.store(value, self._vector_pointer(data, at, offset, length), align=self.item_bytes)

    def multiply_add(self, x: Any, y: Any, total: Any) -> Any:
        return self.builder.fadd(total, self.builder.fmul(x, y, flags=FAST), flags=FAST)

    def splat(self, scalar: Any, length: int) -> Any:
        kind = self.vector(length)
        seat = self.builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
        return self.builder.shuffle_vector(
            seat, ir.Constant(kind, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), length), [0] * length)
        )

    def add_up(self, value: Any, length: int) -> Any:
        suffix = {4: "f32", 8: "f64"}[self.item_bytes]
        kind = ir.FunctionType(self.item, [self.item, self.vector(length)])
        function = cgutils.get_or_insert_function(
            self.builder.module, kind, f"llvm.vector.reduce.fadd.v{length}{suffix}"
        )
        return self.builder.call(function, [ir.Constant(self.item, 0.0), value], fastmath=FAST)

    def _vector_pointer(self, data: Any, at: Any, offset: int, length: int) -> Any:
        place = self.builder.add(at, ir.Constant(at.type, offset))
        return self.builder.bitcast(self.builder.gep(data, [place]), self.vector(length).as_pointer())


def _check_arrays(floats: list[types.Type], index: types.Type, dim: types.Type) -> None:
    same = all(isinstance(t, types.Array) and t.ndim == 1 and t.layout == "C" for t in [*floats, index])
    if not same or len({t.dtype for t in floats}) != 1 or floats[0].dtype not in (types.float32, types.float64):
        msg = f"expected contiguous vectors of one float type, got {floats}"
        raise TypingError(msg)
    if index.dtype != types.int64 or not isinstance(dim, types.IntegerLiteral):
        msg = f"expected an int64 index and a constant dimension, got {index} and {dim}"
        raise TypingError(msg)


@intrinsic(prefer_literal=True)
def dot_rows(
    typing_context: Any,
    out: Any,
    out_at: Any,
    x: Any,
    x_at: Any,
    rows: Any,
    rows_at: Any,
    index: Any,
    start: Any,
    stop: Any,
    dim: Any,
) -> tuple[Any, Callable[..., Any]]:
    """Set ``out[out_at + e - start]`` to the dot product of ``x[x_at:][:dim]`` and row e."""
    _check_arrays([out, x, rows], index, dim)
    int64 = types.int64
    signature = types.void(out, int64, x, int64, rows, int64, index, int64, int64, dim)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = _Emitter(context, builder, out)
        out_data, x_data, rows_data, index_data = (emit.data(signature.args[n], args[n]) for n in (0, 2, 4, 6))
        out_at, x_at, rows_at, start, stop = (args[n] for n in (1, 3, 5, 7, 8))
        size = dim.literal_value
        chunks = _chunks(size, emit.item_bytes)
        x_vectors = [emit.load(x_data, x_at, at, length) for at, length in chunks]
        with cgutils.for_range_slice(builder, start, stop, ir.Constant(start.type, 1), intp=start.type) as (e, _):
            node = builder.load(builder.gep(index_data, [e]))
            row_at = builder.add(rows_at, builder.mul(node, ir.Constant(node.type, size)))
            totals: dict[int, Any] = {}
            for (at, length), x_vector in zip(chunks, x_vectors, strict=True):
                row_vector = emit.load(rows_data, row_at, at, length)
                if length in totals:
                    totals[length] = emit.multiply_add(x_vector, row_vector, totals[length])
                else:
                    totals[length] = builder.fmul(x_vector, row_vector, flags=FAST)
            dots = [emit.add_up(total, length) for length, total in totals.items()]
            dot = dots[0] if len(dots) == 1 else builder.fadd(dots[0], dots[1], flags=FAST)
            builder.store(dot, builder.gep(out_data, [builder.add(out_at, builder.sub(e, start))]))
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)
def sum_rows(
    typing_context: Any,
    out: Any,
    out_at: Any,
    weight: Any,
    weight_at: Any,
    rows: Any,
    rows_at: Any,
    index: Any,
    start: Any,
    stop: Any,
    dim: Any,
) -> tuple[Any, Callable[..., Any]]:
    """Set ``out[out_at:][:dim]`` to the sum of ``weight[weight_at + e - start]`` times row e."""
    _check_arrays([out, weight, rows], index, dim)
    int64 = types.int64
    signature = types.void(out, int64, weight, int64, rows, int64, index, int64, int64, dim)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = _Emitter(context, builder, out)
        out_data, weight_data, rows_data, index_data = (emit.data(signature.args[n], args[n]) for n in (0, 2, 4, 6))
        out_at, weight_at, rows_at, start, stop = (args[n] for n in (1, 3, 5, 7, 8))
        size = dim.literal_value
        chunks = _chunks(size, emit.item_bytes)
        totals = [cgutils.alloca_once(builder, emit.vector(length)) for _, length in chunks]
        for total, (_, length) in zip(totals, chunks, strict=True):
            builder.store(ir.Constant(emit.vector(length), [0.0] * length), total)
        with cgutils.for_range_slice(builder, start, stop, ir.Constant(start.type, 1), intp=start.type) as (e, _):
            node = builder.load(builder.gep(index_data, [e]))
            row_at = builder.add(rows_at, builder.mul(node, ir.Constant(node.type, size)))
            place = builder.add(weight_at, builder.sub(e, start))
            scalar = builder.load(builder.gep(weight_data, [place]))
            for total, (at, length) in zip(totals, chunks, strict=True):
                row_vector = emit.load(rows_data, row_at, at, length)
                builder.store(emit.multiply_add(emit.splat(scalar, length), row_vector, builder.load(total)), total)
        for total, (at, length) in zip(totals, chunks, strict=True):
            emit.store(builder.load(total), out_data, out_at, at, length)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _times_power_of_two(typing_context: Any, x: Any, n: Any) -> tuple[Any, Callable[..., Any]]:
    """Multiply a float32 by two to the power of a whole float32 in [-126, 127]."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(32)
        biased = builder.add(builder.fptosi(args[1], word), ir.Constant(word, 127))
        power = builder.bitcast(builder.shl(biased, ir.Constant(word, 23)), ir.FloatType())
        return builder.fmul(args[0], power)

    return types.float32(types.float32, types.float32), generate


def exp(x: float) -> float:
    """Give ``e**x`` for ``x`` of at most about 0; in float32 vectorisable, within 2 ulp down to -87.

    Below -87 the float32 result is that of -87, about 1.6e-38.
    """
    raise NotImplementedError  # compiled code only, see below


@overload(exp, jit_options={"fastmath": {"contract"}})
def _typed_exp(x: Any) -> Any:  # numba compares the annotations of both, so they say the same
    if x != types.float32:

        def library(x: Any) -> Any:
            return math.exp(x)

        return library

    lowest, log2_e, half, one = np.float32(-87.0), np.float32(1.44269504088896341), np.float32(0.5), np.float32(1.0)
    ln2_high, ln2_low = np.float32(0.693359375), np.float32(-2.12194440e-4)
    c0, c1, c2 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
    c3, c4, c5 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)

    def polynomial(x: Any) -> Any:
        x = lowest if x < lowest else x
        n = np.float32(math.floor(x * log2_e + half))
        r = (x - n * ln2_high) - n * ln2_low
        y = ((((c0 * r + c1) * r + c2) * r + c3) * r + c4) * r + c5
        return _times_power_of_two(y * r * r + r + one, n)

    return polynomial
