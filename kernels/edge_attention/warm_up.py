"""Compile edge attention for the CPU before it is needed."""

from __future__ import annotations

from functools import cache

import torch

from musegnn.kernels.edge_attention.api import edge_attention
from musegnn.kernels.edge_attention.graph import edge_graph

DIMS = (32,)


@cache
def warm_up(dims: tuple[int, ...] = DIMS, dtypes: tuple[torch.dtype, ...] = (torch.float32,)) -> None:
    """Run a tiny graph through every kernel, for float32, float64 or both; numba keeps what it compiles.

    Head dimensions that round up to the same multiple of 16 share their kernels.
    """
    graph = edge_graph([0, 1, 2], [1, 0])
    for dim in dims:
        for dtype in dtypes:
            q, k, v = (torch.ones(2, 1, dim, dtype=dtype, requires_grad=True) for _ in range(3))
            u, a = torch.ones(2, 1, 2, dtype=dtype), torch.ones(2, 2, dtype=dtype)
            torch.autograd.grad(edge_attention(q, k, v, u, a, graph, impl="numba").o.sum(), [q, k, v])
