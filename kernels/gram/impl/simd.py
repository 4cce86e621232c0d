"""Two sums at once: one 16-byte vector operation where the compiler would make two scalar ones."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

PAIR = ir.VectorType(ir.DoubleType(), 2)
LANE = ir.IntType(32)
ALIGNMENT = 8


def _add_pair(typing_context: Any, row: Any, k: Any, y: Any, t: Any, a: Any, b: Any) -> Any:  # numba publishes no types
    """Emit ``row[k] += a * y[t]; row[k + 1] += b * y[t + 1]`` for flat float64 arrays, without bounds checks.

    The product is rounded before the sum, as in the two statements, so the bits are theirs.
    """
    signature = types.void(row, k, y, t, a, b)

    def codegen(context: Any, builder: ir.IRBuilder, call: Any, args: Any) -> Any:  # numba publishes no types
        row_type, k_type, y_type, t_type = call.args[:4]

        def address(array_type: Any, array: Any, index_type: Any, index: Any) -> Any:  # numba publishes no types
            data = context.make_array(array_type)(context, builder, array).data
            offset = context.cast(builder, index, index_type, types.int64)
            return builder.bitcast(builder.gep(data, [offset]), PAIR.as_pointer())

        target, source = address(row_type, args[0], k_type, args[1]), address(y_type, args[2], t_type, args[3])
        factors = builder.insert_element(ir.Constant(PAIR, ir.Undefined), args[4], LANE(0))
        factors = builder.insert_element(factors, args[5], LANE(1))
        before, values = builder.load(target), builder.load(source)
        before.align = values.align = ALIGNMENT
        stored = builder.store(builder.fadd(before, builder.fmul(factors, values)), target)
        stored.align = ALIGNMENT
        return context.get_dummy_value()

    return signature, codegen


add_pair: Any = intrinsic(_add_pair)  # numba publishes no type of what compiled code calls
