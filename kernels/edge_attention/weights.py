"""The attention weights themselves, for looking at: one number per edge and head, not fused and not differentiable.

Legend: N nodes, E edges, H heads, D head dimension, F edge attributes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from musegnn.kernels.edge_attention.graph import EdgeGraph

CHUNK = 1 << 16


@torch.no_grad()
def attention_weights(
    q: torch.Tensor,
    k: torch.Tensor,
    u: torch.Tensor,
    a: torch.Tensor,
    graph: EdgeGraph,
    lse: torch.Tensor,
    *,
    scale: float,
) -> torch.Tensor:
    """Compute ``exp(scale * (q_i . k_j + u_i . a_e) - lse_i)`` for every edge, before dropout and without a gradient.

    The weights, (E, H) in CSR order, sum to 1 over the edges into a node; `lse` and the other arguments are those of
    :func:`~musegnn.kernels.edge_attention.edge_attention`.
    """
    row, col = graph.target, graph.col
    weights = q.new_empty((graph.n_edges, q.shape[1]))
    for first in range(0, graph.n_edges, CHUNK):
        some = slice(first, first + CHUNK)
        i, j = row[some], col[some]
        score = (q[i] * k[j]).sum(-1) + (u[i] * a[some, None, :]).sum(-1)
        weights[some] = torch.exp(scale * score - lse[i])
    return weights
