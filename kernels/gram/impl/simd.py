"""Two sums at once: one 16-byte vector operation where the compiler would make two scalar ones."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

PAIR = ir.VectorType(ir.DoubleType(), 2)
LANE = ir.IntType(32)
ALIGNMENT = 8


def _add_pair(typing_context: Any, row: Any, column: Any, y: Any, t: Any, a: Any, b: Any) -> Any:  # untyped by numba
    """Emit ``k = column[t]; row[2k] += a * y[2t]; row[2k + 1] += b * y[2t + 1]``.

    `row` and `y` are flat float64 arrays, `column` uint32. There are no bounds checks and no wrap-around of negative
    indices, whose test costs as much as the sums. The product is rounded before the sum, as in the statements, so
    the bits are theirs.
    """
    signature = types.void(row, column, y, t, a, b)

    def codegen(context: Any, builder: ir.IRBuilder, call: Any, args: Any) -> Any:  # untyped by numba
        row_data, column_data, y_data = (
            context.make_array(kind)(context, builder, array).data
            for kind, array in zip(call.args[:3], args[:3], strict=True)
        )
        place = context.cast(builder, args[3], call.args[3], types.int64)
        gene = builder.zext(builder.load(builder.gep(column_data, [place])), ir.IntType(64))
        target = builder.gep(builder.bitcast(row_data, PAIR.as_pointer()), [gene])
        source = builder.gep(builder.bitcast(y_data, PAIR.as_pointer()), [place])
        factors = builder.insert_element(ir.Constant(PAIR, ir.Undefined), args[4], LANE(0))
        factors = builder.insert_element(factors, args[5], LANE(1))
        before, values = builder.load(target), builder.load(source)
        before.align = values.align = ALIGNMENT
        stored = builder.store(builder.fadd(before, builder.fmul(factors, values)), target)
        stored.align = ALIGNMENT
        return context.get_dummy_value()

    return signature, codegen


add_pair: Any = intrinsic(_add_pair)  # numba publishes no type of what compiled code calls
