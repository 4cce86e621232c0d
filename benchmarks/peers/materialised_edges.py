"""Graph transformer attention with one projected vector per edge, in Triton, as a baseline on GPUs.

The common design: ``e = W_e a`` is a tensor (E, H, D); a program owns one node and reads one edge per step; the
backward pass writes ``de`` in the same size. Written here from that description.

Legend: N nodes, E edges, H heads, D head dimension.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from musegnn.kernels.edge_attention import EdgeGraph
    from musegnn.model.conv import EdgeFeaturedTransformerConv


@triton.jit
def _load(p_x: tl.tensor, b_at: tl.tensor, mask: tl.tensor) -> tl.tensor:
    return tl.load(p_x + b_at, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def materialised_edges_fwd_kernel(
    p_q: tl.tensor,  # (N, H, D), as p_k, p_v, p_o
    p_k: tl.tensor,
    p_v: tl.tensor,
    p_e: tl.tensor,  # (E, H, D)
    p_rowptr: tl.tensor,
    p_col: tl.tensor,
    p_o: tl.tensor,
    p_lse: tl.tensor,  # (N, H) float32
    scale: float,
    H: tl.constexpr,
    D: tl.constexpr,
    BH: tl.constexpr,
    BD: tl.constexpr,
) -> None:
    """Attend from one node."""
    row = tl.program_id(0).to(tl.int64)
    b_h, b_d = tl.arange(0, BH), tl.arange(0, BD)
    b_hd = b_h[:, None] * D + b_d[None, :]
    mask = (b_h < H)[:, None] & (b_d < D)[None, :]
    b_q = _load(p_q, row * H * D + b_hd, mask)
    b_max = tl.full([BH], float("-inf"), tl.float32)
    b_sum = tl.zeros([BH], tl.float32)
    b_o = tl.zeros([BH, BD], tl.float32)
    start = tl.load(p_rowptr + row)
    for i in range(start, tl.load(p_rowptr + row + 1)):
        col = tl.load(p_col + i)
        b_e = _load(p_e, i * H * D + b_hd, mask)
        b_s = tl.sum(b_q * (_load(p_k, col * H * D + b_hd, mask) + b_e), axis=1) * scale
        b_new = tl.maximum(b_max, b_s)
        b_shrink, b_p = tl.exp(b_max - b_new), tl.exp(b_s - b_new)
        b_sum = b_sum * b_shrink + b_p
        b_o = b_o * b_shrink[:, None] + b_p[:, None] * (_load(p_v, col * H * D + b_hd, mask) + b_e)
        b_max = b_new
    b_divisor = tl.where(b_sum == 0.0, 1.0, b_sum)
    b_low = tl.where(b_sum == 0.0, 0.0, b_max)
    tl.store(p_lse + row * H + b_h, b_low + tl.log(b_divisor), mask=b_h < H)
    tl.store(p_o + row * H * D + b_hd, b_o / b_divisor[:, None], mask=mask)


@triton.jit
def materialised_edges_bwd_kernel_rows(
    p_q: tl.tensor,  # (N, H, D), as p_k, p_v, p_o, p_do, p_dq
    p_k: tl.tensor,
    p_v: tl.tensor,
    p_e: tl.tensor,  # (E, H, D), as p_de
    p_rowptr: tl.tensor,
    p_col: tl.tensor,
    p_o: tl.tensor,
    p_lse: tl.tensor,  # (N, H) float32, as p_delta
    p_do: tl.tensor,
    p_dq: tl.tensor,
    p_de: tl.tensor,
    p_delta: tl.tensor,
    scale: float,
    H: tl.constexpr,
    D: tl.constexpr,
    BH: tl.constexpr,
    BD: tl.constexpr,
) -> None:
    """Compute ``dq``, ``de`` and the sum of each row."""
    row = tl.program_id(0).to(tl.int64)
    b_h, b_d = tl.arange(0, BH), tl.arange(0, BD)
    b_hd = b_h[:, None] * D + b_d[None, :]
    mask = (b_h < H)[:, None] & (b_d < D)[None, :]
    b_q = _load(p_q, row * H * D + b_hd, mask)
    b_do = _load(p_do, row * H * D + b_hd, mask)
    b_delta = tl.sum(b_do * _load(p_o, row * H * D + b_hd, mask), axis=1)
    b_lse = tl.load(p_lse + row * H + b_h, mask=b_h < H, other=0.0)
    tl.store(p_delta + row * H + b_h, b_delta, mask=b_h < H)
    b_dq = tl.zeros([BH, BD], tl.float32)
    start = tl.load(p_rowptr + row)
    for i in range(start, tl.load(p_rowptr + row + 1)):
        col = tl.load(p_col + i)
        b_e = _load(p_e, i * H * D + b_hd, mask)
        b_k = _load(p_k, col * H * D + b_hd, mask) + b_e
        b_v = _load(p_v, col * H * D + b_hd, mask) + b_e
        b_p = tl.exp(tl.sum(b_q * b_k, axis=1) * scale - b_lse)
        b_ds = b_p * (tl.sum(b_do * b_v, axis=1) - b_delta) * scale
        b_dq += b_ds[:, None] * b_k
        tl.store(p_de + i * H * D + b_hd, b_ds[:, None] * b_q + b_p[:, None] * b_do, mask=mask)
    tl.store(p_dq + row * H * D + b_hd, b_dq, mask=mask)


@triton.jit
def materialised_edges_bwd_kernel_columns(
    p_q: tl.tensor,  # (N, H, D), as p_k, p_v, p_do, p_dk, p_dv
    p_k: tl.tensor,
    p_v: tl.tensor,
    p_e: tl.tensor,  # (E, H, D)
    p_colptr: tl.tensor,
    p_row: tl.tensor,
    p_perm: tl.tensor,
    p_lse: tl.tensor,  # (N, H) float32, as p_delta
    p_delta: tl.tensor,
    p_do: tl.tensor,
    p_dk: tl.tensor,
    p_dv: tl.tensor,
    scale: float,
    H: tl.constexpr,
    D: tl.constexpr,
    BH: tl.constexpr,
    BD: tl.constexpr,
) -> None:
    """Compute ``dk`` and ``dv``."""
    col = tl.program_id(0).to(tl.int64)
    b_h, b_d = tl.arange(0, BH), tl.arange(0, BD)
    b_hd = b_h[:, None] * D + b_d[None, :]
    mask = (b_h < H)[:, None] & (b_d < D)[None, :]
    b_k = _load(p_k, col * H * D + b_hd, mask)
    b_v = _load(p_v, col * H * D + b_hd, mask)
    b_dk = tl.zeros([BH, BD], tl.float32)
    b_dv = tl.zeros([BH, BD], tl.float32)
    start = tl.load(p_colptr + col)
    for i in range(start, tl.load(p_colptr + col + 1)):
        row = tl.load(p_row + i)
        b_e = _load(p_e, tl.load(p_perm + i) * H * D + b_hd, mask)
        b_q = _load(p_q, row * H * D + b_hd, mask)
        b_do = _load(p_do, row * H * D + b_hd, mask)
        b_lse = tl.load(p_lse + row * H + b_h, mask=b_h < H, other=0.0)
        b_delta = tl.load(p_delta + row * H + b_h, mask=b_h < H, other=0.0)
        b_p = tl.exp(tl.sum(b_q * (b_k + b_e), axis=1) * scale - b_lse)
        b_ds = b_p * (tl.sum(b_do * (b_v + b_e), axis=1) - b_delta) * scale
        b_dk += b_ds[:, None] * b_q
        b_dv += b_p[:, None] * b_do
    tl.store(p_dk + col * H * D + b_hd, b_dk, mask=mask)
    tl.store(p_dv + col * H * D + b_hd, b_dv, mask=mask)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Any, k: Any, v: Any, e: Any, graph: EdgeGraph) -> torch.Tensor:  # Any: autograd's own
        n_nodes, n_heads, dim = q.shape
        o, lse = torch.empty_like(q), q.new_empty((n_nodes, n_heads), dtype=torch.float32)
        sizes = _sizes(n_heads, dim)
        materialised_edges_fwd_kernel[(n_nodes,)](q, k, v, e, graph.rowptr, graph.col, o, lse, dim**-0.5, **sizes)
        ctx.save_for_backward(q, k, v, e, o, lse)
        ctx.graph = graph
        return o

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # Any: autograd's own
        q, k, v, e, o, lse = ctx.saved_tensors
        graph, grad, delta = ctx.graph, grad.contiguous(), torch.empty_like(lse)
        n_nodes, n_heads, dim = q.shape
        dq, dk, dv, de = (torch.empty_like(part) for part in (q, k, v, e))
        sizes, scale = _sizes(n_heads, dim), dim**-0.5
        materialised_edges_bwd_kernel_rows[(n_nodes,)](
            q, k, v, e, graph.rowptr, graph.col, o, lse, grad, dq, de, delta, scale, **sizes
        )
        materialised_edges_bwd_kernel_columns[(n_nodes,)](
            q, k, v, e, graph.colptr, graph.row, graph.perm, lse, delta, grad, dk, dv, scale, **sizes
        )
        return dq, dk, dv, de, None


def _sizes(n_heads: int, dim: int) -> dict[str, int]:
    return {"H": n_heads, "D": dim, "BH": triton.next_power_of_2(n_heads), "BD": triton.next_power_of_2(dim)}


def convolve(
    conv: EdgeFeaturedTransformerConv, x: torch.Tensor, graph: EdgeGraph, edge_attr: torch.Tensor
) -> torch.Tensor:
    """Apply a convolution with the parameters of ours, its edge projection formed per edge.

    Parameters
    ----------
    conv
        Our layer, with edge features, concatenated heads and a root weight.
    x
        (N, width) node features.
    graph
        The graph.
    edge_attr
        (E, F) edge features in CSR order.
    """
    heads = (conv.heads, conv.out_channels)
    q, k, v = (linear(x).unflatten(-1, heads) for linear in (conv.lin_query, conv.lin_key, conv.lin_value))
    assert conv.lin_edge is not None
    out: torch.Tensor = _Attention.apply(q, k, v, conv.lin_edge(edge_attr).unflatten(-1, heads), graph)
    return out.flatten(1) + conv.lin_skip(x)
