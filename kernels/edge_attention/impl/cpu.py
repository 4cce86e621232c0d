"""Edge attention on the CPU: layouts, memory and threads around the compiled kernels.

Legend: N nodes, E edges, H heads, D head dimension, F edge attributes. Nothing of size (E, H, D) exists; the backward
pass keeps two numbers per edge and head, for as many heads at a time as fit HANDOFF_BYTES.

Every output element is written by one task and summed in the order of the graph, so results do not depend on the
number of threads.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from musegnn.kernels.edge_attention.impl import HANDOFF_BYTES
from musegnn.kernels.edge_attention.impl.gather import MULTIPLE
from musegnn.kernels.edge_attention.impl.graph_cache import PerGraph
from musegnn.kernels.edge_attention.impl.numba import backward_columns_kernel, backward_rows_kernel, forward_kernel
from musegnn.kernels.edge_attention.impl.row_softmax import GOLDEN, Options, heads_first, mix, transpose
from musegnn.kernels.edge_attention.impl.tiles import cut, largest_block

if TYPE_CHECKING:
    from collections.abc import Callable

    from musegnn.kernels.edge_attention.graph import EdgeGraph

KEPT_BYTES = 1 << 24
SERIAL_WORK = 1 << 18
RANGES_PER_THREAD = 4
TILE_BYTES = 1 << 19
BLOCK_EDGES = 1 << 16


def forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, u: torch.Tensor, a: torch.Tensor, graph: EdgeGraph, *,
    scale: float, dropout: float, seed: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Compute ``o`` (N, H, D), ``z`` (N, H, F) and ``lse`` (N, H)."""
    n_nodes, n_heads, dim = q.shape[0], q.shape[1], _padded(q)
    o, z, lse = q.new_empty((n_nodes, n_heads, dim)), u.new_empty(u.shape), q.new_empty((n_nodes, n_heads))
    if n_nodes > 0 and n_heads > 0:
        pointers = graph.rowptr.numpy()
        tiling = _tiling(graph.rowptr, graph.col, graph.offsets, dim * q.element_size())
        arguments = (
            _own(q, dim), _table("k", k, dim), _table("v", v, dim), _flat(u), _attributes_first(a), pointers,
            graph.col.numpy(), _options(q, scale, dropout, seed), _flat(o), _flat(z), _flat(lse), *tiling,
        )  # fmt: skip
        _over_blocks(forward_kernel(dim), arguments, pointers, n_heads * dim, q)
    return _unpadded(o, q), z, lse


def backward(
    do: torch.Tensor, dz: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, u: torch.Tensor,
    a: torch.Tensor, o: torch.Tensor, z: torch.Tensor, lse: torch.Tensor, graph: EdgeGraph, *,
    scale: float, dropout: float, seed: int, needs_da: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Compute the gradients of ``q, k, v, u, a``; that of ``a`` is stored (F, E), and (0, 0) unless ``needs_da``."""
    del o, z  # equation (7) is summed over edges
    rowptr, col, colptr, row, perm, _ = (part.numpy() for part in graph)
    n_nodes, n_heads, dim = q.shape[0], q.shape[1], _padded(q)
    n_edges, n_attributes = a.shape
    dq, dk, dv = (q.new_empty((n_nodes, n_heads, dim)) for _ in range(3))
    du, da = u.new_empty(u.shape), q.new_zeros((n_attributes, n_edges) if needs_da else (0, 0))
    if n_nodes > 0 and n_heads > 0:
        tiles_of_rows = _tiling(graph.rowptr, graph.col, graph.offsets, dim * q.element_size())
        tiles_of_columns = _tiling(graph.colptr, graph.row, graph.offsets, 2 * dim * q.element_size())
        q_table, k_table, v_table, do_table = (
            _table(name, part, dim) for name, part in (("q", q), ("k", k), ("v", v), ("do", do))
        )
        of_rows = (
            _own(q, dim), k_table, v_table, _flat(u), _attributes_first(a), rowptr, col,
            _options(q, scale, dropout, seed), _flat(lse), _own(do, dim), _flat(dz), _flat(dq), _flat(du), _flat(da),
        )  # fmt: skip
        group = max(1, min(n_heads, HANDOFF_BYTES // max(1, 2 * q.element_size() * n_edges)))
        pairs = _workspace("pairs", a, 2 * group * n_edges)
        of_columns = (q_table, do_table, colptr, row, perm, pairs, _flat(dk), _flat(dv))
        for head in range(0, n_heads, group):
            heads = (head, min(head + group, n_heads))
            work = 2 * (heads[1] - heads[0]) * dim
            _over_blocks(backward_rows_kernel(dim), (*of_rows, pairs, *heads, *tiles_of_rows), rowptr, work, q)
            _over_blocks(backward_columns_kernel(dim), (*of_columns, *heads, *tiles_of_columns), colptr, work, None)
    return _unpadded(dq, q), _unpadded(dk, k), _unpadded(dv, v), du, da.T


def _padded(part: torch.Tensor) -> int:
    """Return the head dimension with which the kernels compute."""
    return -(-part.shape[2] // MULTIPLE) * MULTIPLE


def _own(part: torch.Tensor, dim: int) -> np.ndarray[Any, Any]:
    """Lay out nodes first, each head filled up to ``dim`` with zeros."""
    missing = dim - part.shape[2]
    return _flat(torch.nn.functional.pad(part.detach(), (0, missing)) if missing else part)


def _unpadded(part: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return the true head dimension."""
    return part[..., : like.shape[2]].contiguous()


def _table(name: str, part: torch.Tensor, dim: int) -> np.ndarray[Any, Any]:
    """Lay out heads first, each row filled up to ``dim`` with zeros."""
    n_nodes, n_heads, true_dim = part.shape
    flat, out = _flat(part), _workspace(name, part, n_nodes * n_heads * dim)
    _over_ranges(
        lambda first, last: heads_first(flat, out, n_nodes, n_heads, true_dim, dim, first, last),
        _cut_evenly(n_nodes, _n_ranges(n_nodes, out.size)),
    )
    return out


def _attributes_first(a: torch.Tensor) -> np.ndarray[Any, Any]:
    """Lay out attributes (F, E), without a copy where they are stored so."""
    n_edges, n_attributes = a.shape
    if n_attributes <= 1 or a.T.is_contiguous():
        return _flat(a.T)
    flat, out = _flat(a), _workspace("attributes", a, a.numel())
    _over_ranges(
        lambda first, last: transpose(flat, out, n_edges, n_attributes, first, last),
        _cut_evenly(n_edges, _n_ranges(n_edges, out.size)),
    )
    return out


def _workspace(name: str, like: torch.Tensor, size: int) -> np.ndarray[Any, Any]:
    """Return memory that the next call on this thread reuses, unless it is large.

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
    """Return where tiles begin in each row, and the edges of a block of rows: one row where one tile is enough."""

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
    inner = np.searchsorted(pointers, _cut_evenly(n_edges, _n_ranges(n_rows, n_edges * work))[1:-1])
    _over_ranges(run, sorted({0, *inner.tolist(), n_rows}))


def _n_ranges(most: int, work: int) -> int:
    """Return the number of ranges into which work is cut: one where threads would not pay."""
    threads = torch.get_num_threads()
    return 1 if threads == 1 or work < SERIAL_WORK else min(most, threads * RANGES_PER_THREAD)


def _cut_evenly(n: int, n_ranges: int) -> list[int]:
    """Return the ends of ranges of about equal length, the first of them 0."""
    return [n * k // n_ranges for k in range(n_ranges + 1)]


def _over_ranges(run: Callable[[int, int], None], ends: list[int]) -> None:
    """Run ranges, this thread and those of the pool taking the next one in turns."""
    left = deque(pairwise(ends))

    def work() -> None:
        while True:
            try:
                first, last = left.popleft()
            except IndexError:
                return
            run(first, last)

    others = torch.get_num_threads() - 1
    tasks = [_pool(others, os.getpid()).submit(work) for _ in range(min(others, len(left) - 1))]
    try:
        work()
    finally:
        wait(tasks)
    for task in tasks:
        task.result()


@lru_cache(maxsize=1)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Keep one pool; a forked child, known by its process number, needs threads of its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="edge_attention")
