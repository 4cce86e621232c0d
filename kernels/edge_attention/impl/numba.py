"""Edge attention as compiled loops over rows and columns that own their outputs.

The compiler does not vectorise a short dot product inside a loop over edges, so ``dot_rows`` and
``sum_rows`` emit LLVM vectors that stay in registers, legal on every target. All else are plain loops, indexed
by unsigned integers because a signed index may wrap around and such loops are not vectorised.

Legend: N nodes, E edges, H heads, D head dimension (``dim``, constant per compilation), F edge attributes. Arrays are
flattened head-major layouts: nodes (H, N, D) or (H, N, F), attributes (F, E), per-edge numbers (H, E).
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic, overload

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]
    Ints = NDArray[np.int64]

VECTOR_BYTES = 64
VECTOR_FLAGS = ("reassoc", "contract", "nsz")
FAST = {"reassoc", "contract", "nsz", "arcp"}

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31, _S40 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(40)


def _chunks(dim: int, item_bytes: int) -> list[tuple[int, int]]:
    """Split ``dim`` into (offset, length) vectors of at most VECTOR_BYTES."""
    width = VECTOR_BYTES // item_bytes
    return [(at, min(width, dim - at)) for at in range(0, dim, width)]


class _Emitter:
    """Loads, stores and arithmetic of one function under construction."""

    def __init__(self, context: Any, builder: Any, array_type: Any) -> None:  # Any: numba publishes no types
        self.context = context
        self.builder = builder
        self.item = context.get_value_type(array_type.dtype)
        self.item_bytes = array_type.dtype.bitwidth // 8

    def data(self, array_type: Any, value: Any) -> Any:
        return self.context.make_array(array_type)(self.context, self.builder, value).data

    def vector(self, length: int) -> ir.VectorType:
        return ir.VectorType(self.item, length)

    def load(self, data: Any, at: Any, offset: int, length: int) -> Any:
        return self.builder.load(self._vector_pointer(data, at, offset, length), align=self.item_bytes)

    def store(self, value: Any, data: Any, at: Any, offset: int, length: int) -> None:
        self.builder.store(value, self._vector_pointer(data, at, offset, length), align=self.item_bytes)

    def multiply_add(self, x: Any, y: Any, total: Any) -> Any:
        return self.builder.fadd(total, self.builder.fmul(x, y, flags=VECTOR_FLAGS), flags=VECTOR_FLAGS)

    def splat(self, scalar: Any, length: int) -> Any:
        kind = self.vector(length)
        seat = self.builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
        return self.builder.shuffle_vector(
            seat, ir.Constant(kind, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), length), [0] * length)
        )

    def add_up(self, value: Any, length: int) -> Any:
        suffix = {4: "f32", 8: "f64"}[self.item_bytes]
        kind = ir.FunctionType(self.item, [self.item, self.vector(length)])
        name = f"llvm.vector.reduce.fadd.v{length}{suffix}"
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)  # type: ignore[no-untyped-call]
        return self.builder.call(function, [ir.Constant(self.item, 0.0), value], fastmath=VECTOR_FLAGS)

    def _vector_pointer(self, data: Any, at: Any, offset: int, length: int) -> Any:
        place = self.builder.add(at, ir.Constant(at.type, offset))
        return self.builder.bitcast(self.builder.gep(data, [place]), self.vector(length).as_pointer())


def _check_arrays(floats: list[Any], index: Any, dim: Any) -> None:
    same = all(isinstance(t, types.Array) and t.ndim == 1 and t.layout == "C" for t in [*floats, index])
    if not same or len({t.dtype for t in floats}) != 1 or floats[0].dtype not in (types.float32, types.float64):
        msg = f"expected contiguous vectors of one float type, got {floats}"
        raise TypingError(msg)
    if index.dtype != types.int64 or not isinstance(dim, types.IntegerLiteral):
        msg = f"expected an int64 index and a constant dimension, got {index} and {dim}"
        raise TypingError(msg)


def _type_dot_rows(
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
                    totals[length] = builder.fmul(x_vector, row_vector, flags=VECTOR_FLAGS)
            dots = [emit.add_up(total, length) for length, total in totals.items()]
            dot = dots[0] if len(dots) == 1 else builder.fadd(dots[0], dots[1], flags=VECTOR_FLAGS)
            builder.store(dot, builder.gep(out_data, [builder.add(out_at, builder.sub(e, start))]))
        return context.get_dummy_value()

    return signature, generate


def _type_sum_rows(
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
        totals = [
            cgutils.alloca_once(builder, emit.vector(length))  # type: ignore[no-untyped-call]
            for _, length in chunks
        ]
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


def _type_truncate(typing_context: Any, x: Any) -> tuple[Any, Callable[..., Any]]:
    """Cut a float32 to a whole number, toward zero, through 32-bit integers as vector units have them."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.sitofp(builder.fptosi(args[0], ir.IntType(32)), ir.FloatType())

    return types.float32(types.float32), generate


def _type_times_power_of_two(typing_context: Any, x: Any, n: Any) -> tuple[Any, Callable[..., Any]]:
    """Multiply a float32 by two to the power of a whole float32 in [-126, 127]."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(32)
        biased = builder.add(builder.fptosi(args[1], word), ir.Constant(word, 127))
        power = builder.bitcast(builder.shl(biased, ir.Constant(word, 23)), ir.FloatType())
        return builder.fmul(args[0], power)

    return types.float32(types.float32, types.float32), generate


# Any: for numba these are functions of compiled code, for a type checker their typing functions.
dot_rows: Any = intrinsic(prefer_literal=True)(_type_dot_rows)
sum_rows: Any = intrinsic(prefer_literal=True)(_type_sum_rows)
_truncate: Any = intrinsic(_type_truncate)
_times_power_of_two: Any = intrinsic(_type_times_power_of_two)


def exp(x: float) -> float:
    """Give ``e**x`` for ``x`` below 0.3; in float32 vectorisable, within 2 ulp down to -87.

    Below -87 the float32 result is that of -87, about 1.6e-38.
    """
    return math.exp(x)  # compiled code takes the overload below


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
        n = _truncate(x * log2_e - half)
        r = (x - n * ln2_high) - n * ln2_low
        y = ((((c0 * r + c1) * r + c2) * r + c3) * r + c4) * r + c5
        return _times_power_of_two(y * r * r + r + one, n)

    return polynomial


class Options(NamedTuple):
    """What the kernels take beside arrays.

    Attributes
    ----------
    scale
        Factor on the scores.
    key, threshold, grow
        Dropout: the key made of the seed, the bound below which 24 random bits drop a weight (0: no dropout), and
        the factor on the others.
    """

    scale: np.floating[Any]
    key: np.uint64
    threshold: np.uint64
    grow: np.floating[Any]


@njit(cache=True)
def mix(x: np.uint64) -> np.uint64:
    """Scramble 64 bits, the finaliser of splitmix64."""
    x = (x ^ (x >> _S30)) * _MIX_1
    x = (x ^ (x >> _S27)) * _MIX_2
    return x ^ (x >> _S31)


@njit(cache=True)
def _drop(weight: Floats, at: int, n: int, edge: int, head: int, options: Options) -> None:
    """Drop and grow n weights, those of the edges from CSR position ``edge`` on."""
    first, zero, head_key = np.uint64(at), weight.dtype.type(0), np.uint64(head + 1) * _MIX_1
    for e in range(np.uint64(n)):
        bits = mix(mix((np.uint64(edge) + e) * GOLDEN + options.key) + head_key)
        weight[first + e] *= zero if (bits >> _S40) < options.threshold else options.grow


@njit(cache=True, fastmath=FAST)
def _add_attributes(
    score: Floats, at: int, n: int, u: Floats, u_at: int, a: Floats, edge: int, n_edges: int, n_attributes: int
) -> None:
    """Add ``u . a_e`` to the scores of a row."""
    first = np.uint64(at)
    for f in range(n_attributes):
        factor, a_first = u[u_at + f], np.uint64(f * n_edges + edge)
        for e in range(np.uint64(n)):
            score[first + e] += factor * a[a_first + e]


@njit(cache=True, fastmath=FAST)
def _sum_attributes(
    out: Floats, out_at: int, weight: Floats, at: int, n: int, a: Floats, edge: int, n_edges: int, n_attributes: int
) -> None:
    """Set ``out`` to the weighted sum of a row's attributes."""
    first = np.uint64(at)
    for f in range(n_attributes):
        total, a_first = out.dtype.type(0), np.uint64(f * n_edges + edge)
        for e in range(np.uint64(n)):
            total += weight[first + e] * a[a_first + e]
        out[out_at + f] = total


@njit(cache=True, fastmath=FAST)
def _softmax(score: Floats, n: int, scale: np.floating[Any]) -> np.floating[Any]:
    """Turn n raw scores into weights and give the log-sum-exp of the scaled scores."""
    count = np.uint64(n)
    peak = score[0] * scale
    for e in range(count):
        score[e] *= scale
        if score[e] > peak:
            peak = score[e]
    total = score.dtype.type(0)
    for e in range(count):
        score[e] = exp(score[e] - peak)
        total += score[e]
    share = score.dtype.type(1) / total
    for e in range(count):
        score[e] *= share
    lse: np.floating[Any] = peak + np.log(total)
    return lse


@njit(cache=True, fastmath=FAST)
def _recompute(p: Floats, at: int, n: int, scale: np.floating[Any], lse: np.floating[Any]) -> None:
    """Turn n raw scores into weights, given their log-sum-exp, whose rounding the division takes out."""
    first, total = np.uint64(at), p.dtype.type(0)
    for e in range(np.uint64(n)):
        p[first + e] = exp(scale * p[first + e] - lse)
        total += p[first + e]
    share = p.dtype.type(1) / total if n > 0 else total
    for e in range(np.uint64(n)):
        p[first + e] *= share


@njit(cache=True, fastmath=FAST)
def _score_gradient(ds: Floats, p: Floats, at: int, n: int, scale: np.floating[Any]) -> None:
    """Turn n gradients of weights into gradients of raw scores."""
    first, delta = np.uint64(at), ds.dtype.type(0)
    for e in range(np.uint64(n)):
        delta += p[first + e] * ds[first + e]
    for e in range(np.uint64(n)):
        ds[first + e] = scale * p[first + e] * (ds[first + e] - delta)


@njit(cache=True, fastmath=FAST)
def _add_attribute_gradient(
    da: Floats, ds: Floats, p: Floats, at: int, n: int, u: Floats, dz: Floats, u_at: int, edge: int, n_edges: int,
    n_attributes: int,
) -> None:  # fmt: skip
    """Add one row and head's share to the gradient of the attributes."""
    first = np.uint64(at)
    for f in range(n_attributes):
        u_f, dz_f, a_first = u[u_at + f], dz[u_at + f], np.uint64(f * n_edges + edge)
        for e in range(np.uint64(n)):
            da[a_first + e] += ds[first + e] * u_f + p[first + e] * dz_f


@njit(cache=True)
def _longest(pointers: Ints, first: int, last: int) -> int:
    longest = 0
    for i in range(first, last):
        longest = max(longest, pointers[i + 1] - pointers[i])
    return longest


@njit(cache=True)
def _gather(p_out: Floats, ds_out: Floats, p: Floats, ds: Floats, at: int, perm: Ints, start: int, stop: int) -> None:
    """Bring one column's numbers from CSR order together."""
    base, first = np.uint64(at), np.uint64(start)
    for c in range(np.uint64(stop - start)):
        place = base + np.uint64(perm[first + c])
        p_out[c] = p[place]
        ds_out[c] = ds[place]


@cache
def forward_kernel(dim: int) -> Callable[..., None]:
    """Compile the forward pass for one head dimension, or load what an earlier process compiled."""

    @njit(cache=True, nogil=True)
    def edge_attention_fwd_kernel(
        q: Floats, k: Floats, v: Floats, u: Floats, a: Floats, rowptr: Ints, col: Ints, options: Options,
        o: Floats, z: Floats, lse: Floats, first: int, last: int,
    ) -> None:  # fmt: skip
        n_nodes, n_edges = rowptr.size - 1, col.size
        n_heads, n_attributes = lse.size // n_nodes, z.size // lse.size
        p = np.empty(_longest(rowptr, first, last), q.dtype)
        for h in range(n_heads):
            head_at = h * n_nodes * dim
            for i in range(first, last):
                start, stop, node = rowptr[i], rowptr[i + 1], h * n_nodes + i
                n, z_at = stop - start, node * n_attributes
                lse[node] = 0
                if n > 0:
                    dot_rows(p, 0, q, node * dim, k, head_at, col, start, stop, dim)
                    _add_attributes(p, 0, n, u, z_at, a, start, n_edges, n_attributes)
                    lse[node] = _softmax(p, n, options.scale)
                    if options.threshold > 0:
                        _drop(p, 0, n, start, h, options)
                _sum_attributes(z, z_at, p, 0, n, a, start, n_edges, n_attributes)
                sum_rows(o, node * dim, p, 0, v, head_at, col, start, stop, dim)

    kernel: Callable[..., None] = edge_attention_fwd_kernel
    return kernel


@cache
def backward_rows_kernel(dim: int) -> Callable[..., None]:
    """Compile the pass in which rows own ``dq``, ``du``, ``da`` and hand ``p`` and ``ds`` over to the columns."""

    @njit(cache=True, nogil=True)
    def edge_attention_bwd_kernel_rows(
        q: Floats, k: Floats, v: Floats, u: Floats, a: Floats, rowptr: Ints, col: Ints, options: Options,
        lse: Floats, do: Floats, dz: Floats, dq: Floats, du: Floats, da: Floats, p: Floats, ds: Floats,
        first_head: int, last_head: int, first: int, last: int,
    ) -> None:  # fmt: skip
        n_nodes, n_edges = rowptr.size - 1, col.size
        n_attributes = u.size // lse.size
        for h in range(first_head, last_head):
            head_at, hand_at = h * n_nodes * dim, (h - first_head) * n_edges
            for i in range(first, last):
                start, stop, node = rowptr[i], rowptr[i + 1], h * n_nodes + i
                n, at, u_at = stop - start, hand_at + start, node * n_attributes
                dot_rows(p, at, q, node * dim, k, head_at, col, start, stop, dim)
                _add_attributes(p, at, n, u, u_at, a, start, n_edges, n_attributes)
                _recompute(p, at, n, options.scale, lse[node])
                dot_rows(ds, at, do, node * dim, v, head_at, col, start, stop, dim)
                _add_attributes(ds, at, n, dz, u_at, a, start, n_edges, n_attributes)
                if options.threshold > 0:
                    _drop(ds, at, n, start, h, options)
                _score_gradient(ds, p, at, n, options.scale)
                if options.threshold > 0:
                    _drop(p, at, n, start, h, options)
                sum_rows(dq, node * dim, ds, at, k, head_at, col, start, stop, dim)
                _sum_attributes(du, u_at, ds, at, n, a, start, n_edges, n_attributes)
                if da.size > 0:
                    _add_attribute_gradient(da, ds, p, at, n, u, dz, u_at, start, n_edges, n_attributes)

    kernel: Callable[..., None] = edge_attention_bwd_kernel_rows
    return kernel


@cache
def backward_columns_kernel(dim: int) -> Callable[..., None]:
    """Compile the pass in which columns own ``dk`` and ``dv``."""

    @njit(cache=True, nogil=True)
    def edge_attention_bwd_kernel_columns(
        q: Floats, do: Floats, colptr: Ints, row: Ints, perm: Ints, p: Floats, ds: Floats, dk: Floats, dv: Floats,
        first_head: int, last_head: int, first: int, last: int,
    ) -> None:  # fmt: skip
        n_nodes, n_edges = colptr.size - 1, row.size
        longest = _longest(colptr, first, last)
        p_column, ds_column = np.empty(longest, q.dtype), np.empty(longest, q.dtype)
        for h in range(first_head, last_head):
            head_at, hand_at = h * n_nodes * dim, (h - first_head) * n_edges
            for j in range(first, last):
                start, stop, node = colptr[j], colptr[j + 1], h * n_nodes + j
                _gather(p_column, ds_column, p, ds, hand_at, perm, start, stop)
                sum_rows(dk, node * dim, ds_column, 0, q, head_at, row, start, stop, dim)
                sum_rows(dv, node * dim, p_column, 0, do, head_at, row, start, stop, dim)

    kernel: Callable[..., None] = edge_attention_bwd_kernel_columns
    return kernel
