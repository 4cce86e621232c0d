"""The two inner loops of the Gram matrix as vector code, where the compiler would make scalar code.

Both round once per term (fused multiply-add), so that one sum has the same bits whichever loop computes it.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

VECTORS = 8
LANES = 8
TILE_GENES = VECTORS * LANES // 2
ALIGNMENT = 8

DOUBLE, LANE, PLACE = ir.DoubleType(), ir.IntType(32), ir.IntType(64)
PAIR = ir.VectorType(DOUBLE, 2)
WIDE = ir.VectorType(DOUBLE, LANES)
FOUR_TIMES = ir.Constant(ir.VectorType(LANE, LANES), [0, 1] * (LANES // 2))


def _fma(builder: ir.IRBuilder, kind: ir.VectorType) -> Any:  # llvmlite publishes no types
    name = f"llvm.fma.v{kind.count}f64"
    return cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]  # numba publishes no types
        builder.module, ir.FunctionType(kind, [kind] * 3), name
    )


def _load(builder: ir.IRBuilder, pointer: Any) -> Any:  # llvmlite publishes no types
    value = builder.load(pointer)
    value.align = ALIGNMENT
    return value


def _store(builder: ir.IRBuilder, value: Any, pointer: Any) -> None:  # llvmlite publishes no types
    builder.store(value, pointer).align = ALIGNMENT


def _add_pair(typing_context: Any, row: Any, column: Any, y: Any, t: Any, a: Any, b: Any) -> Any:  # untyped by numba
    """Emit ``k = column[t]; row[2k] += a * y[2t]; row[2k + 1] += b * y[2t + 1]``.

    `row` and `y` are flat float64 arrays, `column` uint32. There are no bounds checks and no wrap-around of negative
    indices, whose test costs as much as the sums.
    """
    signature = types.void(row, column, y, t, a, b)

    def codegen(context: Any, builder: ir.IRBuilder, call: Any, args: Any) -> Any:  # untyped by numba
        row_data, column_data, y_data = (
            context.make_array(kind)(context, builder, array).data
            for kind, array in zip(call.args[:3], args[:3], strict=True)
        )
        place = context.cast(builder, args[3], call.args[3], types.int64)
        gene = builder.zext(builder.load(builder.gep(column_data, [place])), PLACE)
        target = builder.gep(builder.bitcast(row_data, PAIR.as_pointer()), [gene])
        source = builder.gep(builder.bitcast(y_data, PAIR.as_pointer()), [place])
        factors = builder.insert_element(ir.Constant(PAIR, ir.Undefined), args[4], LANE(0))
        factors = builder.insert_element(factors, args[5], LANE(1))
        total = builder.call(_fma(builder, PAIR), [factors, _load(builder, source), _load(builder, target)])
        _store(builder, total, target)
        return context.get_dummy_value()

    return signature, codegen


def _add_tile(
    typing_context: Any, out: Any, place: Any, tile: Any, cells: Any, y: Any, begin: Any, end: Any
) -> Any:  # untyped by numba
    """Emit ``out[place + 2k + w] += sum over t in [begin, end) of y[2t + w] * tile[cells[t], 2k + w]``, 32 genes k.

    `out`, `tile` and `y` are flat float64 arrays, `cells` uint32; a row of the tile holds 64 numbers. The 64 sums stay
    in registers over the cells. There are no bounds checks.
    """
    signature = types.void(out, place, tile, cells, y, begin, end)

    def codegen(context: Any, builder: ir.IRBuilder, call: Any, args: Any) -> Any:  # untyped by numba
        def pointer(n: int) -> Any:  # llvmlite publishes no types
            return context.make_array(call.args[n])(context, builder, args[n]).data

        def position(n: int) -> Any:  # llvmlite publishes no types
            return context.cast(builder, args[n], call.args[n], types.int64)

        fma = _fma(builder, WIDE)
        target = builder.bitcast(builder.gep(pointer(0), [position(1)]), WIDE.as_pointer())
        tile_data, cell_data, y_data = pointer(2), pointer(3), builder.bitcast(pointer(4), PAIR.as_pointer())
        sums = [
            cgutils.alloca_once(builder, WIDE)  # type: ignore[no-untyped-call]  # as above
            for _ in range(VECTORS)
        ]
        for v, total in enumerate(sums):
            builder.store(_load(builder, builder.gep(target, [PLACE(v)])), total)
        with cgutils.for_range_slice(builder, position(5), position(6), PLACE(1), PLACE) as (t, _):
            cell = builder.zext(builder.load(builder.gep(cell_data, [t])), PLACE)
            pair = _load(builder, builder.gep(y_data, [t]))
            factor = builder.shuffle_vector(pair, ir.Constant(PAIR, ir.Undefined), FOUR_TIMES)
            start = builder.gep(tile_data, [builder.mul(cell, PLACE(VECTORS * LANES))])
            row = builder.bitcast(start, WIDE.as_pointer())
            for v, total in enumerate(sums):
                values = _load(builder, builder.gep(row, [PLACE(v)]))
                builder.store(builder.call(fma, [factor, values, builder.load(total)]), total)
        for v, total in enumerate(sums):
            _store(builder, builder.load(total), builder.gep(target, [PLACE(v)]))
        return context.get_dummy_value()

    return signature, codegen


add_pair: Any = intrinsic(_add_pair)  # numba publishes no type of what compiled code calls
add_tile: Any = intrinsic(_add_tile)  # as above
