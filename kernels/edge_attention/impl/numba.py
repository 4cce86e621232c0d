"""Edge attention as compiled passes over rows and columns that own their outputs.

Legend: N nodes, E edges, H heads, D head dimension (``dim``, constant per compilation), F edge attributes. Arrays are
flattened head-major layouts: nodes (H, N, D) or (H, N, F), attributes (F, E). Nothing is allocated here: each task
brings two vectors for the edges of its largest block.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from musegnn.kernels.edge_attention.impl.compile import kernel, sources
from musegnn.kernels.edge_attention.impl.rows import Options, differentiate_rows, multiply, weigh_rows
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
        q: Floats, k: Floats, v: Floats, u: Floats, a: Floats, rowptr: Ints, col: Ints, options: Options,
        o: Floats, z: Floats, lse: Floats, cuts: Ints, block_edges: int, p: Floats, share: Floats,
        first: int, last: int,
    ) -> None:  # fmt: skip
        digest  # noqa: B018  see sources()
        n_nodes = rowptr.size - 1
        for h in range(lse.size // n_nodes):
            head_at, begin = h * n_nodes * dim, first
            while begin < last:
                end, base = block_end(rowptr, begin, last, block_edges), rowptr[begin]
                dot_block(p, base, q, k, head_at, col, cuts, n_nodes, begin, end, dim)
                weigh_rows(p, base, share, u, a, rowptr, options, z, lse, h, begin, end)
                sum_block(o, p, base, v, head_at, col, cuts, n_nodes, begin, end, dim)
                for i in range(begin, end):
                    multiply(o, head_at + i * dim, dim, share[i - begin])
                begin = end

    return edge_attention_fwd_kernel


@cache
def backward_rows_kernel(dim: int) -> Callable[..., None]:
    """Compile the pass in which rows own ``dq``, ``du``, ``da`` and leave ``pairs`` of ``ds``, ``p`` to the columns."""
    digest = sources()

    @kernel
    def edge_attention_bwd_kernel_rows(
        q: Floats, k: Floats, v: Floats, u: Floats, a: Floats, rowptr: Ints, col: Ints, options: Options,
        lse: Floats, do: Floats, dz: Floats, dq: Floats, du: Floats, da: Floats, pairs: Floats,
        first_head: int, last_head: int, cuts: Ints, block_edges: int, p: Floats, ds: Floats,
        first: int, last: int,
    ) -> None:  # fmt: skip
        digest  # noqa: B018  see sources()
        n_nodes, n_edges = rowptr.size - 1, col.size
        for h in range(first_head, last_head):
            head_at, pairs_at, begin = h * n_nodes * dim, 2 * (h - first_head) * n_edges, first
            while begin < last:
                end, base = block_end(rowptr, begin, last, block_edges), rowptr[begin]
                dot_block(ds, base, do, v, head_at, col, cuts, n_nodes, begin, end, dim)
                # Keys come second, for their sum follows: those of a short row are still in the first-level cache.
                dot_block(p, base, q, k, head_at, col, cuts, n_nodes, begin, end, dim)
                differentiate_rows(
                    p, ds, base, u, dz, a, rowptr, options, lse, du, da, pairs, pairs_at, h, begin, end
                )  # fmt: skip
                sum_block(dq, ds, base, k, head_at, col, cuts, n_nodes, begin, end, dim)
                begin = end

    return edge_attention_bwd_kernel_rows


@cache
def backward_columns_kernel(dim: int) -> Callable[..., None]:
    """Compile the pass in which columns own ``dk`` and ``dv``."""
    digest = sources()

    @kernel
    def edge_attention_bwd_kernel_columns(
        q: Floats, do: Floats, colptr: Ints, row: Ints, perm: Ints, pairs: Floats, dk: Floats, dv: Floats,
        first_head: int, last_head: int, cuts: Ints, block_edges: int, first: int, last: int,
    ) -> None:  # fmt: skip
        digest  # noqa: B018  see sources()
        n_nodes, n_edges = colptr.size - 1, row.size
        for h in range(first_head, last_head):
            head_at, pairs_at, begin = h * n_nodes * dim, 2 * (h - first_head) * n_edges, first
            while begin < last:
                end = block_end(colptr, begin, last, block_edges)
                sum_placed_block(
                    dk, dv, pairs, pairs_at, perm, q, do, head_at, row, cuts, n_nodes, begin, end, dim
                )  # fmt: skip
                begin = end

    return edge_attention_bwd_kernel_columns
