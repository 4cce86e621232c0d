"""Edge attention on the CPU: compiled loops over rows and columns that own their outputs.

Legend: N nodes, E edges, H heads, D head dimension, F edge attributes. Arrays are flattened from head-major
layouts: nodes (H, N, D) or (H, N, F), attributes (F, E). Nothing of size (E, H, D) exists; the backward pass keeps
two numbers per edge and head, for as many heads at a time as fit HANDOFF_BYTES.

Every output element is written by one task and summed in the order of the graph, so results do not depend on the
number of threads.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numba
import numpy as np
import torch

from musegnn.kernels.edge_attention.impl.simd import dot_rows, exp, sum_rows

if TYPE_CHECKING:
    from collections.abc import Callable

HANDOFF_BYTES = 1 << 28
SERIAL_WORK = 1 << 18
BLOCKS_PER_THREAD = 4
FAST = {"reassoc", "contract", "nsz", "arcp"}

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31, _S40 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(40)


class _Dropout(NamedTuple):
    """Dropout as the kernels take it: weights whose 24 random bits lie below ``threshold`` are dropped."""

    key: np.uint64
    threshold: np.uint64
    grow: np.floating[Any]


class _Kernels(NamedTuple):
    forward: Callable[..., None]
    backward_rows: Callable[..., None]
    backward_columns: Callable[..., None]


@numba.njit(cache=True)
def _mix(x):
    x = (x ^ (x >> _S30)) * _MIX_1
    x = (x ^ (x >> _S27)) * _MIX_2
    return x ^ (x >> _S31)


@numba.njit(cache=True, fastmath=FAST)
def _add_attributes(score, score_at, n, weight, weight_at, a, a_at, n_edges, n_attributes):
    for f in range(n_attributes):
        w = weight[weight_at + f]
        for e in range(n):
            score[score_at + e] += w * a[f * n_edges + a_at + e]


@numba.njit(cache=True, fastmath=FAST)
def _sum_attributes(out, out_at, n, weight, weight_at, a, a_at, n_edges, n_attributes):
    for f in range(n_attributes):
        total = weight[weight_at] * a[f * n_edges + a_at]
        for e in range(1, n):
            total += weight[weight_at + e] * a[f * n_edges + a_at + e]
        out[out_at + f] = total


@numba.njit(cache=True, fastmath=FAST)
def _drop(weight, weight_at, n, edge, head, dropout):
    zero = weight.dtype.type(0)
    for e in range(n):
        bits = _mix(_mix(np.uint64(edge + e) * _GOLDEN + dropout.key) + np.uint64(head + 1) * _MIX_1)
        weight[weight_at + e] *= zero if (bits >> _S40) < dropout.threshold else dropout.grow


@numba.njit(cache=True, fastmath=FAST)
def _softmax(score, n, scale):
    """Turn raw scores into weights and give their log-sum-exp."""
    peak = score[0] * scale
    for e in range(n):
        score[e] *= scale
        if score[e] > peak:
            peak = score[e]
    for e in range(n):
        score[e] = exp(score[e] - peak)
    total = score[0]
    for e in range(1, n):
        total += score[e]
    share = score.dtype.type(1) / total
    for e in range(n):
        score[e] *= share
    return peak + np.log(total)


@lru_cache(maxsize=None)
def _kernels(dim: int) -> _Kernels:
    """Compile for one head dimension, or load what an earlier process compiled."""

    @numba.njit(cache=True, nogil=True)
    def forward(q, k, v, u, a, rowptr, col, scale, dropout, o, z, lse, first, last):
        n_nodes, n_edges = rowptr.size - 1, col.size
        n_heads, n_attributes = lse.size // n_nodes, z.size // lse.size
        longest = 0
        for i in range(first, last):
            longest = max(longest, rowptr[i + 1] - rowptr[i])
        p = np.empty(longest, q.dtype)
        for h in range(n_heads):
            head_at = h * n_nodes * dim
            for i in range(first, last):
                start, stop = rowptr[i], rowptr[i + 1]
                n, node = stop - start, h * n_nodes + i
                if n == 0:
                    lse[node] = 0
                    o[node * dim : (node + 1) * dim] = 0
                    z[node * n_attributes : (node + 1) * n_attributes] = 0
                    continue
                dot_rows(p, 0, q, node * dim, k, head_at, col, start, stop, dim)
                _add_attributes(p, 0, n, u, node * n_attributes, a, start, n_edges, n_attributes)
                lse[node] = _softmax(p[:n], n, scale)
                if dropout.threshold > 0:
                    _drop(p, 0, n, start, h, dropout)
                _sum_attributes(z, node * n_attributes, n, p, 0, a, start, n_edges, n_attributes)
                sum_rows(o, node * dim, p, 0, v, head_at, col, start, stop, dim)

    @numba.njit(cache=True, nogil=True, fastmath=FAST)
    def backward_rows(
        q,
        k,
        v,
        u,
        a,
        rowptr,
        col,
        scale,
        dropout,
        lse,
        delta,
        do,
        dz,
        dq,
        du,
        da,
        p,
        ds,
        first_head,
        last_head,
        first,
        last,
    ):
        n_nodes, n_edges = rowptr.size - 1, col.size
        n_attributes = u.size // lse.size
        for h in range(first_head, last_head):
            head_at, hand_at = h * n_nodes * dim, (h - first_head) * n_edges
            for i in range(first, last):
                start, stop = rowptr[i], rowptr[i + 1]
                n, node, at = stop - start, h * n_nodes + i, hand_at + start
                if n == 0:
                    dq[node * dim : (node + 1) * dim] = 0
                    du[node * n_attributes : (node + 1) * n_attributes] = 0
                    continue
                dot_rows(p, at, q, node * dim, k, head_at, col, start, stop, dim)
                _add_attributes(p, at, n, u, node * n_attributes, a, start, n_edges, n_attributes)
                dot_rows(ds, at, do, node * dim, v, head_at, col, start, stop, dim)
                _add_attributes(ds, at, n, dz, node * n_attributes, a, start, n_edges, n_attributes)
                shift, mean = lse[node], delta[node]
                for e in range(at, at + n):
                    p[e] = exp(scale * p[e] - shift)
                if dropout.threshold > 0:
                    _drop(ds, at, n, start, h, dropout)
                for e in range(at, at + n):
                    ds[e] = scale * p[e] * (ds[e] - mean)
                if dropout.threshold > 0:
                    _drop(p, at, n, start, h, dropout)
                sum_rows(dq, node * dim, ds, at, k, head_at, col, start, stop, dim)
                _sum_attributes(du, node * n_attributes, n, ds, at, a, start, n_edges, n_attributes)
                if da.size > 0:
                    for f in range(n_attributes):
                        u_f, dz_f = u[node * n_attributes + f], dz[node * n_attributes + f]
                        for e in range(n):
                            da[f * n_edges + start + e] += ds[at + e] * u_f + p[at + e] * dz_f

    @numba.njit(cache=True, nogil=True)
    def backward_columns(q, do, colptr, row, perm, p, ds, dk, dv, first_head, last_head, first, last):
        n_nodes, n_edges = colptr.size - 1, row.size
        longest = 0
        for j in range(first, last):
            longest = max(longest, colptr[j + 1] - colptr[j])
        weight = np.empty(longest, q.dtype)
        for h in range(first_head, last_head):
            head_at, hand_at = h * n_nodes * dim, (h - first_head) * n_edges
            for j in range(first, last):
                start, stop = colptr[j], colptr[j + 1]
                node = h * n_nodes + j
                for c in range(stop - start):
                    weight[c] = ds[hand_at + perm[start + c]]
                sum_rows(dk, node * dim, weight, 0, q, head_at, row, start, stop, dim)
                for c in range(stop - start):
                    weight[c] = p[hand_at + perm[start + c]]
                sum_rows(dv, node * dim, weight, 0, do, head_at, row, start, stop, dim)

    return _Kernels(forward, backward_rows, backward_columns)


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
            _scalar(q, scale),
            _dropout(q, dropout, seed),
            _flat(o),
            _flat(z),
            _flat(lse),
        )
        _over_blocks(_kernels(dim).forward, arguments, pointers, n_heads * dim)
    return o.transpose(0, 1).contiguous(), z.transpose(0, 1).contiguous(), lse.T.contiguous()


def backward(
    do: torch.Tensor,
    dz: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    u: torch.Tensor,
    a: torch.Tensor,
    o: torch.Tensor,
    z: torch.Tensor,
    lse: torch.Tensor,
    graph: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor],
    *,
    scale: float,
    dropout: float,
    seed: int,
    needs_da: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compute the gradients of ``q, k, v, u, a``; that of ``a`` is zero unless ``needs_da``."""
    rowptr, col, colptr, row, perm = (part.numpy() for part in graph)
    n_nodes, n_heads, dim = q.shape
    n_edges, n_attributes = a.shape
    dq, dk, dv = (q.new_empty((n_heads, n_nodes, dim)) for _ in range(3))
    du = q.new_empty((n_heads, n_nodes, n_attributes))
    da = q.new_zeros((n_attributes, n_edges))
    if n_nodes > 0 and n_heads > 0:
        delta = (do * o).sum(-1) + (dz * z).sum(-1)
        q_, k_, v_, u_, do_, dz_ = (_head_major(part) for part in (q, k, v, u, do, dz))
        a_, lse_, delta_ = _flat(a.T), _flat(lse.T), _flat(delta.T)
        tau, drop = _scalar(q, scale), _dropout(q, dropout, seed)
        kernels = _kernels(dim)
        group = max(1, min(n_heads, HANDOFF_BYTES // max(1, 2 * q.element_size() * n_edges)))
        p, ds = (np.empty(group * n_edges, q_.dtype) for _ in range(2))
        for head in range(0, n_heads, group):
            heads = (head, min(head + group, n_heads))
            work = (heads[1] - heads[0]) * dim
            _over_blocks(
                kernels.backward_rows,
                (q_, k_, v_, u_, a_, rowptr, col, tau, drop, lse_, delta_, do_, dz_, _flat(dq), _flat(du),
                 _flat(da) if needs_da else _flat(da[:0]), p, ds, *heads),
                rowptr, 2 * work,
            )  # fmt: skip
            _over_blocks(
                kernels.backward_columns,
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


def _scalar(like: torch.Tensor, value: float) -> np.floating[Any]:
    return np.float32(value) if like.dtype == torch.float32 else np.float64(value)


def _dropout(like: torch.Tensor, dropout: float, seed: int) -> _Dropout:
    word = np.uint64((seed + int(_GOLDEN)) & ((1 << 64) - 1))
    return _Dropout(np.uint64(_mix(word)), np.uint64(round(dropout * (1 << 24))), _scalar(like, 1.0 / (1.0 - dropout)))


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
        _pool(threads, os.getpid()).submit(kernel, *arguments, int(first), int(last))
        for first, last in zip(ends[:-1], ends[1:], strict=True)
    ]
    for task in tasks:
        task.result()


@lru_cache(maxsize=1)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:  # noqa: ARG001  a forked child needs threads of its own
    return ThreadPoolExecutor(threads, thread_name_prefix="edge_attention")
