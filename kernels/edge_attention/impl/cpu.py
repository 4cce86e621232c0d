"""Edge attention on the CPU: head-major layouts and blocks of rows around the compiled kernels.

Legend: N nodes, E edges, H heads, D head dimension, F edge attributes. Nothing of size (E, H, D) exists; the backward
pass keeps two numbers per edge and head, for as many heads at a time as fit HANDOFF_BYTES.

Every output element is written by one task and summed in the order of the graph, so results do not depend on the
number of threads.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from musegnn.kernels.edge_attention.impl.numba import (
    GOLDEN,
    Options,
    backward_columns_kernel,
    backward_rows_kernel,
    forward_kernel,
    mix,
)

if TYPE_CHECKING:
    from collections.abc import Callable

HANDOFF_BYTES = 1 << 28
SERIAL_WORK = 1 << 18
BLOCKS_PER_THREAD = 4


def forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    u: torch.Tensor,
    a: torch.Tensor,
    rowptr: torch.Tensor,
    col: torch.Tensor,
    *,
    scale: float,
    dropout: float,
    seed: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compute ``o`` (N, H, D), ``z`` (N, H, F) and ``lse`` (N, H)."""
    n_nodes, n_heads, dim = q.shape
    o, z = q.new_empty((n_heads, n_nodes, dim)), q.new_empty((n_heads, n_nodes, a.shape[1]))
    lse = q.new_empty((n_heads, n_nodes))
    if n_nodes > 0 and n_heads > 0:
        pointers = rowptr.numpy()
        arguments = (
            *(_head_major(part) for part in (q, k, v, u)),
            _flat(a.T),
            pointers,
            col.numpy(),
            _options(q, scale, dropout, seed),
            _flat(o),
            _flat(z),
            _flat(lse),
        )
        _over_blocks(forward_kernel(dim), arguments, pointers, n_heads * dim)
    return o.transpose(0, 1).contiguous(), z.transpose(0, 1).contiguous(), lse.T.contiguous()


def backward(
    do: torch.Tensor,
    dz: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    u: torch.Tensor,
    a: torch.Tensor,
    lse: torch.Tensor,
    graph: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor],
    *,
    scale: float,
    dropout: float,
    seed: int,
    needs_da: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compute the gradients of ``q, k, v, u, a``; that of ``a`` is (0, 0) unless ``needs_da``."""
    rowptr, col, colptr, row, perm = (part.numpy() for part in graph)
    n_nodes, n_heads, dim = q.shape
    n_edges, n_attributes = a.shape
    dq, dk, dv = (q.new_empty((n_heads, n_nodes, dim)) for _ in range(3))
    du = q.new_empty((n_heads, n_nodes, n_attributes))
    da = q.new_zeros((n_attributes, n_edges) if needs_da else (0, 0))
    if n_nodes > 0 and n_heads > 0:
        q_, k_, v_, u_, do_, dz_ = (_head_major(part) for part in (q, k, v, u, do, dz))
        a_, lse_ = _flat(a.T), _flat(lse.T)
        options = _options(q, scale, dropout, seed)
        group = max(1, min(n_heads, HANDOFF_BYTES // max(1, 2 * q.element_size() * n_edges)))
        p, ds = (_flat(q.new_empty(group * n_edges)) for _ in range(2))
        for head in range(0, n_heads, group):
            heads = (head, min(head + group, n_heads))
            work = (heads[1] - heads[0]) * dim
            _over_blocks(
                backward_rows_kernel(dim),
                (q_, k_, v_, u_, a_, rowptr, col, options, lse_, do_, dz_, _flat(dq), _flat(du),
                 _flat(da), p, ds, *heads),
                rowptr, 2 * work,
            )  # fmt: skip
            _over_blocks(
                backward_columns_kernel(dim),
                (q_, do_, colptr, row, perm, p, ds, _flat(dk), _flat(dv), *heads),
                colptr, 2 * work,
            )  # fmt: skip
    dq, dk, dv, du = (part.transpose(0, 1).contiguous() for part in (dq, dk, dv, du))
    return dq, dk, dv, du, da.T.contiguous()


def _head_major(part: torch.Tensor) -> np.ndarray[Any, Any]:
    return _flat(part.transpose(0, 1))


def _flat(part: torch.Tensor) -> np.ndarray[Any, Any]:
    flat: np.ndarray[Any, Any] = part.detach().contiguous().view(-1).numpy()
    return flat


def _options(like: torch.Tensor, scale: float, dropout: float, seed: int) -> Options:
    number = np.float32 if like.dtype == torch.float32 else np.float64
    key = mix(np.uint64((seed + int(GOLDEN)) % (1 << 64)))
    threshold = np.uint64(round(dropout * (1 << 24)))
    return Options(number(scale), np.uint64(key), threshold, number(1.0 / (1.0 - dropout)))


def _over_blocks(
    kernel: Callable[..., None], arguments: tuple[Any, ...], pointers: np.ndarray[Any, Any], work: int
) -> None:
    """Run a kernel over blocks of rows with about equal numbers of edges."""
    n_rows, n_edges = pointers.size - 1, int(pointers[-1])
    threads = torch.get_num_threads()
    if threads == 1 or n_edges * work < SERIAL_WORK:
        kernel(*arguments, 0, n_rows)
        return
    n_blocks = min(n_rows, threads * BLOCKS_PER_THREAD)
    inner = np.searchsorted(pointers, np.linspace(0, n_edges, n_blocks + 1)[1:-1])
    ends = np.unique(np.concatenate([[0], inner, [n_rows]]))
    tasks = [
        _pool(threads, os.getpid()).submit(kernel, *arguments, int(first), int(last)) for first, last in pairwise(ends)
    ]
    for task in tasks:
        task.result()


@lru_cache(maxsize=1)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Keep one pool; a forked child, known by its process number, needs threads of its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="edge_attention")
