"""Edge attention on the CPU: head-major layouts and blocks of rows around the compiled kernels.

Legend: N nodes, E edges, H heads, D head dimension, F edge attributes. Nothing of size (E, H, D) exists; the backward
pass keeps two numbers per edge and head, for as many heads at a time as fit HANDOFF_BYTES.

Every output element is written by one task and summed in the order of the graph, so results do not depend on the
number of threads.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from musegnn.kernels.edge_attention.impl.gather import MULTIPLE
from musegnn.kernels.edge_attention.impl.numba import backward_columns_kernel, backward_rows_kernel, forward_kernel
from musegnn.kernels.edge_attention.impl.per_graph import PerGraph
from musegnn.kernels.edge_attention.impl.rows import GOLDEN, Options, mix, transpose
from musegnn.kernels.edge_attention.impl.tiles import cut, largest_block

if TYPE_CHECKING:
    from collections.abc import Callable

    from musegnn.kernels.edge_attention.graph import EdgeGraph

HANDOFF_BYTES = 1 << 22
KEPT_BYTES = 1 << 22
SERIAL_WORK = 1 << 18
RANGES_PER_THREAD = 4
TILE_BYTES = 1 << 19
BLOCK_EDGES = 1 << 17


def forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    u: torch.Tensor,
    a: torch.Tensor,
    rowptr: torch.Tensor,
    col: torch.Tensor,
    offsets: torch.Tensor,
    *,
    scale: float,
    dropout: float,
    seed: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compute ``o`` (N, H, D), ``z`` (N, H, F) and ``lse`` (N, H)."""
    n_nodes, n_heads, _ = q.shape
    dim = -(-q.shape[2] // MULTIPLE) * MULTIPLE
    q_, k_, v_ = (_head_major(name, part, dim) for name, part in (("q", q), ("k", k), ("v", v)))
    u_ = _head_major("u", u, u.shape[2])
    o, z = _zeros("o", q, q_.size), _workspace("z", u, u_.size)
    lse = q.new_empty((n_heads, n_nodes))
    if n_nodes > 0 and n_heads > 0:
        pointers, columns = rowptr.numpy(), col.numpy()
        tiling = _tiling(rowptr, col, offsets, dim * q.element_size())
        options = _options(q, scale, dropout, seed)
        arguments = (
            q_, k_, v_, u_, _attributes_first(a), pointers, columns, options, o, z, lse.view(-1).numpy(), *tiling
        )  # fmt: skip
        _over_blocks(forward_kernel(dim), arguments, pointers, n_heads * dim, q)
    return _node_major(o, q), _node_major(z, u), lse.T.contiguous()


def backward(
    do: torch.Tensor,
    dz: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    u: torch.Tensor,
    a: torch.Tensor,
    lse: torch.Tensor,
    graph: EdgeGraph,
    *,
    scale: float,
    dropout: float,
    seed: int,
    needs_da: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compute the gradients of ``q, k, v, u, a``; that of ``a`` is (0, 0) unless ``needs_da``."""
    rowptr, col, colptr, row, perm, _ = (part.numpy() for part in graph)
    n_nodes, n_heads, _ = q.shape
    dim = -(-q.shape[2] // MULTIPLE) * MULTIPLE
    n_edges, n_attributes = a.shape
    named = (("q", q), ("k", k), ("v", v), ("o", do))
    q_, k_, v_, do_ = (_head_major(name, part, dim) for name, part in named)
    u_, dz_ = (_head_major(name, part, n_attributes) for name, part in (("u", u), ("z", dz)))
    dq, dk, dv = (_zeros(name, q, q_.size) for name in ("dq", "dk", "dv"))
    du = _workspace("du", u, u_.size)
    da = q.new_zeros((n_attributes, n_edges) if needs_da else (0, 0))
    if n_nodes > 0 and n_heads > 0:
        tiles_of_rows = _tiling(graph.rowptr, graph.col, graph.offsets, dim * q.element_size())
        tiles_of_columns = _tiling(graph.colptr, graph.row, graph.offsets, 2 * dim * q.element_size())
        a_, lse_ = _attributes_first(a), _flat(lse.T)
        options = _options(q, scale, dropout, seed)
        group = max(1, min(n_heads, HANDOFF_BYTES // max(1, 2 * q.element_size() * n_edges)))
        pairs = _workspace("pairs", a, 2 * group * n_edges)
        for head in range(0, n_heads, group):
            heads = (head, min(head + group, n_heads))
            work = (heads[1] - heads[0]) * dim
            _over_blocks(
                backward_rows_kernel(dim),
                (
                    q_,
                    k_,
                    v_,
                    u_,
                    a_,
                    rowptr,
                    col,
                    options,
                    lse_,
                    do_,
                    dz_,
                    dq,
                    du,
                    _flat(da),
                    pairs,
                    *heads,
                    *tiles_of_rows,
                ),
                rowptr,
                2 * work,
                q,
            )
            _over_blocks(
                backward_columns_kernel(dim),
                (q_, do_, colptr, row, perm, pairs, dk, dv, *heads, *tiles_of_columns),
                colptr,
                2 * work,
                None,
            )
    dq_, dk_, dv_ = (_node_major(part, q) for part in (dq, dk, dv))
    return dq_, dk_, dv_, _node_major(du, u), da.T.contiguous()


def _head_major(name: str, part: torch.Tensor, dim: int) -> np.ndarray[Any, Any]:
    """Lay out heads first, each row filled up to ``dim`` with zeros."""
    n_nodes, n_heads, true_dim = part.shape
    kept = _workspace(name, part, n_nodes * n_heads * dim)
    heads = torch.from_numpy(kept).view(n_heads, n_nodes, dim)
    heads[..., :true_dim].copy_(part.detach().transpose(0, 1))
    heads[..., true_dim:] = 0
    return kept


def _node_major(kept: np.ndarray[Any, Any], like: torch.Tensor) -> torch.Tensor:
    """Bring results back to the shape of ``like``, and new memory."""
    n_nodes, n_heads, dim = like.shape
    if like.numel() == 0:
        return like.new_empty(like.shape)
    heads = torch.from_numpy(kept).view(n_heads, n_nodes, -1)
    return like.new_empty(like.shape).copy_(heads[..., :dim].transpose(0, 1))


def _zeros(name: str, like: torch.Tensor, size: int) -> np.ndarray[Any, Any]:
    kept = _workspace(name, like, size)
    kept.fill(0)
    return kept


def _attributes_first(a: torch.Tensor) -> np.ndarray[Any, Any]:
    """Lay out attributes (F, E), without a copy where they are stored so."""
    n_edges, n_attributes = a.shape
    if n_attributes <= 1 or a.T.is_contiguous():
        return _flat(a.T)
    flat, out = _flat(a), _workspace("attributes", a, a.numel())
    ends = np.linspace(0, n_edges, _n_tasks(n_edges, a.numel()) + 1).astype(np.int64)
    _over_ranges(lambda first, last: transpose(flat, out, n_edges, n_attributes, first, last), ends)
    return out


def _workspace(name: str, like: torch.Tensor, size: int) -> np.ndarray[Any, Any]:
    """Give memory that the next call on this thread reuses, unless it is large.

    New memory costs a page fault for every 4 KiB; of large arrays numpy asks for large pages.
    """
    dtype = np.dtype(np.float32 if like.dtype == torch.float32 else np.float64)
    n_bytes = size * dtype.itemsize
    if n_bytes > KEPT_BYTES:
        return np.empty(size, dtype)
    if not hasattr(_kept, name) or getattr(_kept, name).size < n_bytes:
        setattr(_kept, name, np.empty(n_bytes, np.uint8))
    kept: np.ndarray[Any, Any] = getattr(_kept, name)[:n_bytes].view(dtype)
    return kept


_kept = threading.local()


def _tiling(
    pointers: torch.Tensor, index: torch.Tensor, offsets: torch.Tensor, row_bytes: int
) -> tuple[np.ndarray[Any, Any], int]:
    """Give where tiles begin in each row, and the edges of a block of rows: one row where one tile is enough."""

    def make() -> tuple[np.ndarray[Any, Any], int]:
        n_nodes = np.diff(offsets.numpy())
        n_tiles = np.maximum(1, -(-n_nodes * row_bytes // TILE_BYTES))
        most, tiles = int(n_tiles.max(initial=1)), -(-n_nodes // n_tiles)
        cuts: np.ndarray[Any, Any] = cut(pointers.numpy(), index.numpy(), offsets.numpy(), tiles, most)
        return cuts, BLOCK_EDGES if most > 1 else 0

    return _tilings.get((pointers, index, offsets), row_bytes, make)


_tilings: PerGraph[tuple[np.ndarray[Any, Any], int]] = PerGraph()


def _flat(part: torch.Tensor) -> np.ndarray[Any, Any]:
    flat: np.ndarray[Any, Any] = part.detach().contiguous().view(-1).numpy()
    return flat


def _options(like: torch.Tensor, scale: float, dropout: float, seed: int) -> Options:
    number = np.float32 if like.dtype == torch.float32 else np.float64
    key = mix(np.uint64((seed + int(GOLDEN)) % (1 << 64)))
    threshold = np.uint64(round(dropout * (1 << 24)))
    return Options(number(scale), np.uint64(key), threshold, number(1.0 / (1.0 - dropout)))


def _over_blocks(
    kernel: Callable[..., None],
    arguments: tuple[Any, ...],
    pointers: np.ndarray[Any, Any],
    work: int,
    scratch: torch.Tensor | None,
) -> None:
    """Run a kernel over ranges of rows with about equal numbers of edges.

    The last argument is the number of edges of a block; with ``scratch`` each task adds memory of its dtype for one.
    """

    def run(first: int, last: int) -> None:
        if scratch is None:
            kernel(*arguments, first, last)
            return
        size = largest_block(pointers, first, last, arguments[-1])
        kernel(*arguments, *(_workspace(name, scratch, size) for name in ("edges_1", "edges_2")), first, last)

    n_rows, n_edges = pointers.size - 1, int(pointers[-1])
    inner = np.searchsorted(pointers, np.linspace(0, n_edges, _n_tasks(n_rows, n_edges * work) + 1)[1:-1])
    _over_ranges(run, np.unique(np.concatenate([[0], inner, [n_rows]])))


def _n_tasks(most: int, work: int) -> int:
    """Give the number of tasks into which a computation is cut: one where threads would not pay."""
    threads = torch.get_num_threads()
    return 1 if threads == 1 or work < SERIAL_WORK else min(most, threads * RANGES_PER_THREAD)


def _over_ranges(run: Callable[[int, int], None], ends: np.ndarray[Any, Any]) -> None:
    """Run ranges in the pool, or the only one here."""
    if ends.size == 2:
        run(int(ends[0]), int(ends[1]))
        return
    pool = _pool(torch.get_num_threads(), os.getpid())
    tasks = [pool.submit(run, int(first), int(last)) for first, last in pairwise(ends)]
    for task in tasks:
        task.result()


@lru_cache(maxsize=1)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Keep one pool; a forked child, known by its process number, needs threads of its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="edge_attention")
