"""Edge attention as compiled passes over rows and columns that own their outputs.

Legend: N nodes, E edges, H heads, D head dimension (``dim``, constant per compilation), F edge attributes. Arrays are
flat. What is gathered along edges is head-major, (H, N, D), its name ends in ``table``; what a row or a column owns is
node-major, (N, H, D), (N, H, F) or (N, H). Attributes are (F, E). Nothing is allocated here: each task brings two
vectors for the edges of its largest block.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from musegnn.kernels.edge_attention.impl.compile import kernel, sources
from musegnn.kernels.edge_attention.impl.row_softmax import Options, differentiate_rows, multiply, weigh_rows
from musegnn.kernels.edge_attention.impl.tiles import block_end, dot_block, sum_block, sum_placed_block

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]
    Ints = NDArray[np.int64]


@cache
def forward_kernel(dim: int) -> Callable[..., None]:
    """Compile the forward pass for one head dimension, or load what an earlier process compiled."""
    digest = sources()

    @kernel
    def edge_attention_fwd_kernel(
        q: Floats, k_table: Floats, v_table: Floats, u: Floats, a: Floats, rowptr: Ints, col: Ints, options: Options,
        o: Floats, z: Floats, lse: Floats, cuts: Ints, block_edges: int, p: Floats, share: Floats,
        first: int, last: int,
    ) -> None:  # fmt: skip
        digest  # noqa: B018  see sources()
        n_nodes = rowptr.size - 1
        n_heads = lse.size // n_nodes
        step = n_heads * dim
        for h in range(n_heads):
            at, table_at, begin = h * dim, h * n_nodes * dim, first
            while begin < last:
                end, base = block_end(rowptr, begin, last, block_edges), rowptr[begin]
                dot_block(p, base, q, at, step, k_table, table_at, col, cuts, n_nodes, begin, end, dim)
                weigh_rows(p, base, share, u, a, rowptr, options, z, lse, h, begin, end)
                sum_block(o, at, step, p, base, v_table, table_at, col, cuts, n_nodes, begin, end, dim)
                for i in range(begin, end):
                    multiply(o, at + i * step, dim, share[i - begin])
                begin = end

    return edge_attention_fwd_kernel


@cache
def backward_rows_kernel(dim: int) -> Callable[..., None]:
    """Compile the pass in which rows own ``dq``, ``du``, ``da`` and leave ``pairs`` of ``ds``, ``p`` to the columns."""
    digest = sources()

    @kernel
    def edge_attention_bwd_kernel_rows(
        q: Floats, k_table: Floats, v_table: Floats, u: Floats, a: Floats, rowptr: Ints, col: Ints, options: Options,
        lse: Floats, do: Floats, dz: Floats, dq: Floats, du: Floats, da: Floats, pairs: Floats,
        first_head: int, last_head: int, cuts: Ints, block_edges: int, p: Floats, ds: Floats,
        first: int, last: int,
    ) -> None:  # fmt: skip
        digest  # noqa: B018  see sources()
        n_nodes, n_edges = rowptr.size - 1, col.size
        step = lse.size // n_nodes * dim
        for h in range(first_head, last_head):
            at, table_at, pairs_at, begin = h * dim, h * n_nodes * dim, 2 * (h - first_head) * n_edges, first
            while begin < last:
                end, base = block_end(rowptr, begin, last, block_edges), rowptr[begin]
                dot_block(ds, base, do, at, step, v_table, table_at, col, cuts, n_nodes, begin, end, dim)
                # Keys come second, for their sum follows: those of a short row are still in the first-level cache.
                dot_block(p, base, q, at, step, k_table, table_at, col, cuts, n_nodes, begin, end, dim)
                differentiate_rows(
                    p, ds, base, u, dz, a, rowptr, options, lse, du, da, pairs, pairs_at, h, begin, end
                )  # fmt: skip
                sum_block(dq, at, step, ds, base, k_table, table_at, col, cuts, n_nodes, begin, end, dim)
                begin = end

    return edge_attention_bwd_kernel_rows


@cache
def backward_columns_kernel(dim: int) -> Callable[..., None]:
    """Compile the pass in which columns own ``dk`` and ``dv``."""
    digest = sources()

    @kernel
    def edge_attention_bwd_kernel_columns(
        q_table: Floats, do_table: Floats, colptr: Ints, row: Ints, perm: Ints, pairs: Floats, dk: Floats, dv: Floats,
        first_head: int, last_head: int, cuts: Ints, block_edges: int, first: int, last: int,
    ) -> None:  # fmt: skip
        digest  # noqa: B018  see sources()
        n_nodes, n_edges = colptr.size - 1, row.size
        step = dk.size // n_nodes
        for h in range(first_head, last_head):
            at, table_at, pairs_at, begin = h * dim, h * n_nodes * dim, 2 * (h - first_head) * n_edges, first
            while begin < last:
                end = block_end(colptr, begin, last, block_edges)
                sum_placed_block(
                    dk, dv, at, step, pairs, pairs_at, perm, q_table, do_table, table_at, row, cuts, n_nodes, begin,
                    end, dim,
                )  # fmt: skip
                begin = end

    return edge_attention_bwd_kernel_columns
