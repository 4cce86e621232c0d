"""Attention along edges, with edge attributes in keys and values.

Legend: N nodes, E edges, H heads, D head dimension, F edge attributes.
"""

from __future__ import annotations

import math
import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from musegnn.kernels.edge_attention import ops
from musegnn.kernels.edge_attention.impl import reference
from musegnn.kernels.validation import resolve_impl

if TYPE_CHECKING:
    from musegnn.kernels.edge_attention.graph import EdgeGraph

_HAS_NUMBA = find_spec("numba") is not None
_HAS_TRITON = find_spec("triton") is not None
_INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"  # Triton's kernels run on the CPU, to be checked
_NUMBA_DTYPES = (torch.float32, torch.float64)
_TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

EdgeAttentionImpl = Literal["auto", "reference", "numba", "triton"]


class EdgeAttentionOutput(NamedTuple):
    """Result of attention per node and head; 0 for nodes without incoming edges.

    Attributes
    ----------
    o, z
        (N, H, D) weighted sums of values, and (N, H, F) of edge attributes.
    lse
        (N, H) log-sum-exp of the scores, not differentiable.
    """

    o: torch.Tensor
    z: torch.Tensor
    lse: torch.Tensor


def edge_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    u: torch.Tensor,
    a: torch.Tensor,
    graph: EdgeGraph,
    *,
    scale: float | None = None,
    dropout: float = 0.0,
    seed: int = 0,
    impl: EdgeAttentionImpl = "auto",
) -> EdgeAttentionOutput:
    """Attend from every node to the nodes it receives from; ``o`` and ``z`` are differentiable in ``q, k, v, u, a``.

    With edge ``e = (j -> i)``, per head: ``s_e = scale * (q_i . k_j + u_i . a_e)``, ``p`` the softmax of ``s``
    over the edges into i, ``o_i = sum_e p_e v_j`` and ``z_i = sum_e p_e a_e``.

    Parameters
    ----------
    q, k, v
        (N, H, D) queries, keys and values of one floating point dtype.
    u
        (N, H, F) queries on the edge attributes, same dtype; F may be 0.
    a
        (E, F) edge attributes in the graph's CSR order, same dtype.
    scale
        Factor on the scores; ``None``: ``1/sqrt(D)``.
    dropout, seed
        Share of attention weights set to 0, in [0, 1); the others grow by ``1/(1-dropout)``. What is dropped is a
        function of the seed, the edge's CSR position and the head.
    impl
        ``reference``: plain torch, any device and dtype; ``numba``: compiled for the CPU, float32 and float64,
        no second derivatives, bitwise identical for any number of threads; ``triton``: compiled for CUDA devices,
        float32, bfloat16 and float16, no second derivatives, bitwise identical at every call; ``auto``: ``numba`` or
        ``triton`` where one applies, else ``reference``.

    References
    ----------
    Shi et al., "Masked Label Prediction: Unified Message Passing Model for Semi-Supervised Classification",
    IJCAI 2021, equations 3 to 5.
    """
    _check(q, k, v, u, a, graph)
    if not 0.0 <= dropout < 1.0:
        msg = f"dropout must lie in [0, 1), got {dropout}"
        raise ValueError(msg)
    factor = 1.0 / math.sqrt(q.shape[2]) if scale is None else scale
    chosen = _choose(impl, q, graph)
    if chosen == "reference":
        out = reference.attend(q, k, v, u, a, graph, scale=factor, dropout=dropout, seed=seed)
    else:
        word = (seed + (1 << 63)) % (1 << 64) - (1 << 63)
        out = ops.attend(q, k, v, u, a, *graph, factor, dropout, word, chosen)
    return EdgeAttentionOutput(*out)


def available() -> list[str]:
    """Return the names of the implementations that this installation can run."""
    has_device = torch.cuda.is_available() or _INTERPRETED
    return ["reference", *["numba"] * _HAS_NUMBA, *["triton"] * (_HAS_TRITON and has_device)]


def _choose(impl: str, q: torch.Tensor, graph: EdgeGraph) -> str:
    device, refusals = q.device.type, {}
    if device != "cpu" or q.dtype not in _NUMBA_DTYPES:
        refusals["numba"] = f"takes float32 and float64 on the CPU, got {q.dtype} on {q.device}"
    if device != ("cpu" if _INTERPRETED else "cuda") or q.dtype not in _TRITON_DTYPES:
        refusals["triton"] = f"takes float32, bfloat16 and float16 on CUDA devices, got {q.dtype} on {q.device}"
    # Never the interpreter, nothing that is not installed, and no kernel for no edges.
    preferred = {"cpu": ["numba"] * _HAS_NUMBA, "cuda": ["triton"] * _HAS_TRITON}.get(device, [])
    first = preferred if graph.n_edges > 0 else []
    return resolve_impl(impl, [*first, "reference", *{"numba", "triton"}.difference(first)], refusals)


def _check(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, u: torch.Tensor, a: torch.Tensor, graph: EdgeGraph
) -> None:
    if q.dim() != 3 or q.shape[2] == 0:
        msg = f"q must have shape (N, H, D) with D > 0, got {tuple(q.shape)}"
        raise ValueError(msg)
    n_attributes = a.shape[-1] if a.dim() == 2 else -1
    heads = (graph.n_nodes, *q.shape[1:])
    shapes = (heads, heads, heads, (*heads[:2], n_attributes), (graph.n_edges, n_attributes))
    for name, tensor, shape in zip("qkvua", (q, k, v, u, a), shapes, strict=True):
        if tuple(tensor.shape) != shape:
            msg = f"{name} must have shape {shape}, got {tuple(tensor.shape)}"
            raise ValueError(msg)
        if tensor.dtype != q.dtype or not tensor.is_floating_point():
            msg = f"{name} must have the floating point dtype of q ({q.dtype}), got {tensor.dtype}"
            raise TypeError(msg)
        if tensor.device != q.device or graph.col.device != q.device:
            msg = f"{name} and the graph must be on the device of q ({q.device})"
            raise ValueError(msg)
