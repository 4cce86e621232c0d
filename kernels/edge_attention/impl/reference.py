"""Edge attention in plain torch: the specification, differentiated by autograd.

Legend: N nodes, E edges, H heads, D head dimension, F edge attributes. Materialises (E, H, D) tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from musegnn.kernels.segment import segment_softmax, segment_sum

if TYPE_CHECKING:
    from musegnn.kernels.edge_attention.graph import EdgeGraph

_WORD = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, u: torch.Tensor, a: torch.Tensor, graph: EdgeGraph, *,
    scale: float, dropout: float, seed: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Compute equations (1) to (4) of the README edge by edge."""
    out_dtype = q.dtype
    # Half precision is too coarse for sums over thousands of edges.
    dtype = torch.promote_types(out_dtype, torch.float32)
    q, k, v, u, a = (part.to(dtype) for part in (q, k, v, u, a))
    row, col = graph.target, graph.col
    s_EH = scale * ((q[row] * k[col]).sum(-1) + (u[row] * a[:, None, :]).sum(-1))
    p_EH, lse_NH = segment_softmax(s_EH, graph.rowptr, impl="torch")
    if dropout > 0.0:
        keep = keep_mask(graph.n_edges, q.shape[1], dropout=dropout, seed=seed).to(p_EH.device)
        p_EH = p_EH * keep.to(dtype) / (1.0 - dropout)
    o_NHD = segment_sum(p_EH[..., None] * v[col], graph.rowptr, impl="torch")
    z_NHF = segment_sum(p_EH[..., None] * a[:, None, :], graph.rowptr, impl="torch")
    return o_NHD.to(out_dtype), z_NHF.to(out_dtype), lse_NH.detach()


def keep_mask(n_edges: int, n_heads: int, *, dropout: float, seed: int) -> torch.Tensor:
    """Draw which attention weights survive dropout, equation (9) of the README: (E, H) bool.

    It is a function of the seed, the edge's CSR position and the head alone.
    """
    key = _mix(torch.tensor(_signed(seed + _GOLDEN)))
    edge = _mix(torch.arange(n_edges) * _signed(_GOLDEN) + key)
    head = torch.arange(1, n_heads + 1) * _signed(_MIX_1)
    bits = (_mix(edge[:, None] + head) >> 40) & ((1 << 24) - 1)
    return bits >= round(dropout * (1 << 24))


def _signed(word: int) -> int:
    word &= _WORD
    return word - (1 << 64) if word >> 63 else word


def _shift(x: torch.Tensor, bits: int) -> torch.Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: torch.Tensor) -> torch.Tensor:
    x = (x ^ _shift(x, 30)) * _signed(_MIX_1)
    x = (x ^ _shift(x, 27)) * _signed(_MIX_2)
    return x ^ _shift(x, 31)
