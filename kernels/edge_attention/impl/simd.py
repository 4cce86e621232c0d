"""Vectors of one width for compiled code, so that sums have one order on every machine.

A numba function sees a ``Lanes`` value: 64 bytes of float32 or float64, emitted as a generic LLVM vector, which each
target splits into the registers that it has. Nothing here may be reassociated; products are fused into sums by
``fma`` alone. The same bits follow on all targets that have fused multiply-add, whatever their vector width.

In the loops of this package ``left`` is the number of elements from a position on: what lies beyond is neither read
nor written.
"""

from __future__ import annotations

from math import factorial
from typing import TYPE_CHECKING, Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic, models, register_model

if TYPE_CHECKING:
    from collections.abc import Callable

VECTOR_BYTES = 64
INT32, INT64 = ir.IntType(32), ir.IntType(64)

# Any throughout: numba and llvmlite publish no types for what is under construction.
Typed = tuple[Any, "Callable[..., Any]"]


class Lanes(types.Type):
    """The type of a vector of one float type."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(name=f"Lanes({dtype})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Lanes) -> None:
        super().__init__(manager, kind, vector_type(kind.dtype))  # type: ignore[no-untyped-call]


def vector_type(dtype: Any) -> ir.VectorType:
    """Return the LLVM type of a vector."""
    kind = {32: ir.FloatType(), 64: ir.DoubleType()}[dtype.bitwidth]
    return ir.VectorType(kind, VECTOR_BYTES * 8 // dtype.bitwidth)


def constant(value: float, kind: ir.VectorType) -> ir.Constant:
    """Make a vector of equal constants."""
    return ir.Constant(kind, [value] * kind.count)


def multiply_add(builder: Any, x: Any, y: Any, total: Any) -> Any:
    """Return ``x * y + total``, rounded once where the target can."""
    return _call(builder, "llvm.fmuladd.v{}", total.type, total.type, x, y, total)


def splat(builder: Any, scalar: Any, kind: ir.VectorType) -> Any:
    """Fill a vector with a scalar."""
    empty = ir.Constant(kind, ir.Undefined)
    seat = builder.insert_element(empty, scalar, ir.Constant(INT32, 0))
    return builder.shuffle_vector(seat, empty, ir.Constant(ir.VectorType(INT32, kind.count), [0] * kind.count))


def pointer(builder: Any, data: Any, at: Any, kind: ir.VectorType) -> Any:
    """Point to the vector that starts at an element."""
    return builder.bitcast(builder.gep(data, [at]), kind.as_pointer())


def array_data(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """Return the data pointer of an array argument."""
    return context.make_array(kind)(context, builder, value).data


def _larger(builder: Any, x: Any, y: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", x, y), x, y)


def _fold(builder: Any, join: Callable[[Any, Any], Any], value: Any) -> Any:
    """Join the halves of a vector until one number is left."""
    while isinstance(value.type, ir.VectorType):
        half = value.type.count // 2
        low, high = (_part(builder, value, start, half) for start in (0, half))
        value = join(low, high)
    return value


def _part(builder: Any, value: Any, start: int, length: int) -> Any:
    if length == 1:
        return builder.extract_element(value, ir.Constant(INT32, start))
    index = ir.Constant(ir.VectorType(INT32, length), list(range(start, start + length)))
    return builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), index)


def _check_array(kind: Any) -> None:
    is_flat = isinstance(kind, types.Array) and kind.ndim == 1 and kind.layout == "C"
    if not is_flat or kind.dtype not in (types.float32, types.float64):
        msg = f"expected a contiguous vector of float32 or float64, got {kind}"
        raise TypingError(msg)


def _mask(builder: Any, left: Any, n_lanes: int) -> Any:
    """Mark the lanes before ``left``."""
    kind = ir.VectorType(INT32, n_lanes)
    return builder.icmp_signed(
        "<", ir.Constant(kind, list(range(n_lanes))), splat(builder, builder.trunc(left, INT32), kind)
    )


def _call(builder: Any, name: str, kind: ir.VectorType, result: Any, *arguments: Any) -> Any:
    """Call an LLVM intrinsic that is named after a vector type."""
    word = {"float": "f32", "double": "f64"}[str(kind.element)]
    signature = ir.FunctionType(result, [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(builder.module, signature, name.format(f"{kind.count}{word}"))  # type: ignore[no-untyped-call]
    return builder.call(function, arguments)


def _type_load(typing_context: Any, x: Any, at: Any, left: Any) -> Typed:
    """Load from ``x[at]`` on; lanes that are not left hold 0."""
    _check_array(x)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, align = vector_type(x.dtype), x.dtype.bitwidth // 8
        place = pointer(builder, array_data(context, builder, x, args[0]), args[1], kind)
        value = cgutils.alloca_once(builder, kind)  # type: ignore[no-untyped-call]
        is_whole = builder.icmp_signed(">=", args[2], ir.Constant(INT64, kind.count))
        with builder.if_else(is_whole, likely=True) as (whole, part):
            with whole:
                builder.store(builder.load(place, align=align), value)
            with part:
                mask, nothing = _mask(builder, args[2], kind.count), constant(0.0, kind)
                some = _call(
                    builder, "llvm.masked.load.v{}.p0", kind, kind, place, ir.Constant(INT32, align), mask, nothing
                )
                builder.store(some, value)
        return builder.load(value)

    return Lanes(x.dtype)(x, types.int64, types.int64), generate


def _type_store(typing_context: Any, value: Any, x: Any, at: Any, left: Any) -> Typed:
    """Store the lanes that are left from ``x[at]`` on."""
    _check_array(x)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, align = vector_type(x.dtype), x.dtype.bitwidth // 8
        place = pointer(builder, array_data(context, builder, x, args[1]), args[2], kind)
        _store(builder, args[0], place, align, args[3])
        return context.get_dummy_value()

    return types.void(Lanes(x.dtype), x, types.int64, types.int64), generate


def _type_store_pairs(typing_context: Any, x: Any, y: Any, pairs: Any, at: Any, left: Any) -> Typed:
    """Store lanes of x and y in turns, those that are left, from ``pairs[at]`` on."""
    _check_array(pairs)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, align = vector_type(pairs.dtype), pairs.dtype.bitwidth // 8
        data, half = array_data(context, builder, pairs, args[2]), kind.count // 2
        for n in (0, 1):
            order = [lane + source for lane in range(n * half, (n + 1) * half) for source in (0, kind.count)]
            turns = builder.shuffle_vector(args[0], args[1], ir.Constant(ir.VectorType(INT32, kind.count), order))
            place = pointer(builder, data, builder.add(args[3], ir.Constant(INT64, n * kind.count)), kind)
            left = builder.sub(builder.shl(args[4], ir.Constant(INT64, 1)), ir.Constant(INT64, n * kind.count))
            _store(builder, turns, place, align, left)
        return context.get_dummy_value()

    return types.void(x, x, pairs, types.int64, types.int64), generate


def _store(builder: Any, value: Any, place: Any, align: int, left: Any) -> None:
    kind = value.type
    with builder.if_else(builder.icmp_signed(">=", left, ir.Constant(INT64, kind.count)), likely=True) as (whole, part):
        with whole:
            builder.store(value, place, align=align)
        with part:
            mask = _mask(builder, left, kind.count)
            _call(
                builder, "llvm.masked.store.v{}.p0", kind, ir.VoidType(), value, place, ir.Constant(INT32, align), mask
            )


def _type_only(typing_context: Any, x: Any, left: Any, beyond: Any) -> Typed:
    """Replace the lanes that are not left by ``beyond``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = args[0].type
        return builder.select(_mask(builder, args[1], kind.count), args[0], splat(builder, args[2], kind))

    return x(x, types.int64, x.dtype), generate


def _type_fill(typing_context: Any, scalar: Any) -> Typed:
    """Fill all lanes with one number."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return splat(builder, args[0], vector_type(scalar))

    return Lanes(scalar)(scalar), generate


def _type_add(typing_context: Any, x: Any, y: Any) -> Typed:
    return x(x, x), lambda context, builder, signature, args: builder.fadd(*args)


def _type_mul(typing_context: Any, x: Any, y: Any) -> Typed:
    return x(x, x), lambda context, builder, signature, args: builder.fmul(*args)


def _type_fma(typing_context: Any, x: Any, y: Any, z: Any) -> Typed:
    """Return ``x * y + z``."""
    return x(x, x, x), lambda context, builder, signature, args: multiply_add(builder, *args)


def _type_maximum(typing_context: Any, x: Any, y: Any) -> Typed:
    """Return the larger of each pair of lanes, ``y`` where ``x`` is not a number."""
    return x(x, x), lambda context, builder, signature, args: _larger(builder, *args)


def _type_total(typing_context: Any, x: Any) -> Typed:
    """Sum the lanes by halves: lane l and l + n/2, then quarters, and so on."""
    return x.dtype(x), lambda context, builder, signature, args: _fold(builder, builder.fadd, args[0])


def _type_largest(typing_context: Any, x: Any) -> Typed:
    """Return the largest lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _fold(builder, lambda low, high: _larger(builder, low, high), args[0])

    return x.dtype(x), generate


def _type_exp(typing_context: Any, x: Any) -> Typed:
    """Return ``e**x`` for ``x`` below 0.3, within 2 ulp; below -87 (float32) and -708 (float64) that of the bound."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = vector_type(x.dtype)
        constants = _EXP[x.dtype]
        lowest = constant(constants["lowest"], kind)
        # Not-a-numbers pass the first comparison, and the second keeps them from the conversion to integers.
        bounded = builder.select(builder.fcmp_ordered("<", args[0], lowest), lowest, args[0])
        number = builder.select(builder.fcmp_ordered(">", bounded, lowest), bounded, lowest)
        turns = multiply_add(builder, number, constant(constants["log2_e"], kind), constant(-0.5, kind))
        whole = builder.fptosi(turns, ir.VectorType(INT32, kind.count))
        n = builder.sitofp(whole, kind)
        r = multiply_add(builder, n, constant(-constants["ln2_high"], kind), bounded)
        r = multiply_add(builder, n, constant(-constants["ln2_low"], kind), r)
        y = constant(constants["terms"][0], kind)
        for term in constants["terms"][1:]:
            y = multiply_add(builder, y, r, constant(term, kind))
        y = multiply_add(builder, builder.fmul(y, r), r, builder.fadd(r, constant(1.0, kind)))
        word = ir.VectorType(ir.IntType(x.dtype.bitwidth), kind.count)
        exponent = whole if x.dtype.bitwidth == 32 else builder.sext(whole, word)
        biased = builder.add(exponent, ir.Constant(word, [constants["bias"]] * kind.count))
        power = builder.shl(biased, ir.Constant(word, [constants["digits"]] * kind.count))
        return builder.fmul(y, builder.bitcast(power, kind))

    return x(x), generate


_EXP: dict[Any, dict[str, Any]] = {
    types.float32: {
        "lowest": -87.0, "log2_e": 1.44269504088896341, "ln2_high": 0.693359375, "ln2_low": -2.12194440e-4,
        "bias": 127, "digits": 23,
        "terms": [1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1],
    },
    types.float64: {
        "lowest": -708.0, "log2_e": 1.44269504088896341, "ln2_high": 0.69314718036912382,
        "ln2_low": 1.90821492927058770e-10, "bias": 1023, "digits": 52,
        "terms": [1.0 / factorial(k) for k in range(13, 1, -1)],
    },
}  # fmt: skip

# Any: for numba these are functions of compiled code, for a type checker their typing functions.
load: Any = intrinsic(_type_load)
store: Any = intrinsic(_type_store)
store_pairs: Any = intrinsic(_type_store_pairs)
only: Any = intrinsic(_type_only)
fill: Any = intrinsic(_type_fill)
add: Any = intrinsic(_type_add)
mul: Any = intrinsic(_type_mul)
fma: Any = intrinsic(_type_fma)
maximum: Any = intrinsic(_type_maximum)
total: Any = intrinsic(_type_total)
largest: Any = intrinsic(_type_largest)
exp: Any = intrinsic(_type_exp)
