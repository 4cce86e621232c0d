"""Edge attention over tiles of a dense graph, whose edges are bits: products on tensor cores.

A program owns BM rows (or 64 columns) of one graph and one head and walks over the other side, 32 columns (or BM rows)
a step. Bit c of a word says whether the edge exists; the bits below it, counted, say where its attributes are. Scores
are in base 2. The format is described in ``work_lists.py``.

Arguments of the kernels: q, k, v, o and their gradients are (N, H, D), u, z and theirs (N, H, F), a (E, F) float32, lse
and delta (N, H) float32; mask and base int32, per graph (NT, N); table (G, 4) int64: first node, first word, first edge
and number of nodes of each graph; items (items, 2) int32: graph and tile.
"""

from __future__ import annotations

import triton
import triton.language as tl

from musegnn.kernels.edge_attention.impl.triton.common import (
    LN_2,
    LOG2_E,
    count_bits,
    differentiate,
    finite,
    keep_weight,
    load_numbers,
)


@triton.jit
def _load_item(p_items: tl.tensor, p_table: tl.tensor, H: tl.constexpr) -> tl.tuple:
    """Return head and tile of the program, and of its graph: first node, first word, first edge, number of nodes."""
    i_item = tl.program_id(0).to(tl.int64) // H
    i_head = tl.program_id(0).to(tl.int64) % H
    p_graph = p_table + tl.load(p_items + i_item * 2).to(tl.int64) * 4
    tile = tl.load(p_items + i_item * 2 + 1)
    n_nodes = tl.load(p_graph + 3).to(tl.int32)
    return i_head, tile, tl.load(p_graph), tl.load(p_graph + 1), tl.load(p_graph + 2), n_nodes


@triton.jit
def _load_tile(
    p_x: tl.tensor, b_n: tl.tensor, n_nodes: tl.tensor, b_d: tl.tensor,
    H: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, UPCAST: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Load one head of nodes as (nodes, BD), 0 beyond the graph and D; ``p_x`` points to the graph's first node."""
    mask = (b_n < n_nodes)[:, None]
    if BD > D:
        mask = mask & (b_d < D)[None, :]
    b_x = tl.load(p_x + b_n[:, None] * (H * D) + b_d[None, :], mask=mask, other=0.0)
    if UPCAST:
        b_x = b_x.to(tl.float32)
    return b_x


@triton.jit
def _store_tile(
    p_x: tl.tensor, b_at: tl.tensor, b_d: tl.tensor, mask: tl.tensor, b_x: tl.tensor, D: tl.constexpr
) -> None:
    """Store one head of nodes; ``b_at`` numbers nodes and heads together."""
    tl.store(p_x + b_at[:, None] * D + b_d[None, :], b_x, mask=mask[:, None] & (b_d < D)[None, :])


@triton.jit
def _place_edges(b_word: tl.tensor, b_base: tl.tensor, b_bit: tl.tensor) -> tl.tuple:
    """Return which bits are edges, and their positions: that of the word's first edge plus the number of bits below."""
    b_below = ((1 << b_bit.to(tl.int64)) - 1).to(tl.int32)
    return ((b_word >> b_bit) & 1) != 0, b_base + count_bits(b_word & b_below)


@triton.jit
def _load_columns(
    p_k: tl.tensor, p_v: tl.tensor, p_mask: tl.tensor, p_base: tl.tensor, word: tl.tensor, j: tl.tensor,
    b_m: tl.tensor, mask_m: tl.tensor, n_nodes: tl.tensor, b_d: tl.tensor,
    H: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, UPCAST: tl.constexpr,
) -> tl.tuple:  # fmt: skip
    """Return keys and values of 32 columns, which edges there are, and their positions."""
    b_n = tl.arange(0, 32)
    b_word = tl.load(p_mask + word + b_m, mask=mask_m, other=0)[:, None]
    b_base = tl.load(p_base + word + b_m, mask=mask_m, other=0)[:, None]
    b_k = _load_tile(p_k, j + b_n, n_nodes, b_d, H, D, BD, UPCAST)
    b_v = _load_tile(p_v, j + b_n, n_nodes, b_d, H, D, BD, UPCAST)
    mask, b_edge = _place_edges(b_word, b_base, b_n[None, :])
    return b_k, b_v, mask, b_edge


@triton.jit(do_not_specialize=["key", "threshold"])
def edge_attention_fwd_kernel_tile(
    p_q: tl.tensor, p_k: tl.tensor, p_v: tl.tensor, p_u: tl.tensor, p_a: tl.tensor,
    p_mask: tl.tensor, p_base: tl.tensor, p_table: tl.tensor, p_items: tl.tensor,
    p_o: tl.tensor, p_z: tl.tensor, p_lse: tl.tensor,
    scale: float, key: tl.uint64, threshold: tl.int32, grow: float,
    H: tl.constexpr, D: tl.constexpr, F: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr,
    PRECISION: tl.constexpr, USE_DROPOUT: tl.constexpr, UPCAST: tl.constexpr,
) -> None:  # fmt: skip
    """Compute ``o``, ``z`` and ``lse`` of a tile of rows: equations (1) to (4)."""
    i_head, tile, node, word, edge, n_nodes = _load_item(p_items, p_table, H)
    first = (node * H + i_head) * D
    b_m, b_d = tile * BM + tl.arange(0, BM), tl.arange(0, BD)
    mask_m = b_m < n_nodes
    b_at = (node + b_m) * H + i_head

    b_q = _load_tile(p_q + first, b_m, n_nodes, b_d, H, D, BD, UPCAST)
    b_u: tl.tuple = ()
    b_z: tl.tuple = ()
    for f in tl.static_range(F):
        b_uf = tl.load(p_u + b_at * F + f, mask=mask_m, other=0.0).to(tl.float32)
        b_u = b_u + (b_uf * (scale * LOG2_E),)
        b_z = b_z + (tl.zeros([BM], tl.float32),)
    b_max = tl.full([BM], float("-inf"), tl.float32)
    b_sum = tl.zeros([BM], tl.float32)
    b_o = tl.zeros([BM, BD], tl.float32)
    for j in range(0, n_nodes, 32):
        b_k, b_v, mask, b_edge = _load_columns(
            p_k + first, p_v + first, p_mask, p_base, word, j, b_m, mask_m, n_nodes, b_d, H, D, BD, UPCAST
        )
        word += n_nodes
        b_s = tl.dot(b_q, tl.trans(b_k), input_precision=PRECISION) * (scale * LOG2_E)
        b_a: tl.tuple = ()
        for f in tl.static_range(F):  # loaded one by one as they are used: together they spill registers
            b_a = b_a + (tl.load(p_a + edge * F + b_edge * F + f, mask=mask, other=0.0),)
            b_s += b_u[f][:, None] * b_a[f]
        b_s = tl.where(mask, b_s, float("-inf"))
        b_new = tl.maximum(b_max, tl.max(b_s, axis=1))
        b_low = finite(b_new)
        b_shrink = tl.exp2(b_max - b_low)
        b_p = tl.exp2(b_s - b_low[:, None])
        b_max = b_new
        b_sum = b_sum * b_shrink + tl.sum(b_p, axis=1)
        if USE_DROPOUT:
            b_p = b_p * keep_weight(edge + b_edge, i_head, key, threshold, grow)
        b_next: tl.tuple = ()
        for f in tl.static_range(F):
            b_next = b_next + (b_z[f] * b_shrink + tl.sum(b_p * b_a[f], axis=1),)
        b_z = b_next
        b_o = b_o * b_shrink[:, None]
        b_o = tl.dot(b_p.to(b_v.dtype), b_v, b_o, input_precision=PRECISION)

    b_divisor = tl.where(b_sum == 0.0, 1.0, b_sum)
    tl.store(p_lse + b_at, (finite(b_max) + tl.log2(b_divisor)) * LN_2, mask=mask_m)
    _store_tile(p_o, b_at, b_d, mask_m, b_o / b_divisor[:, None], D)
    for f in tl.static_range(F):
        tl.store(p_z + b_at * F + f, b_z[f] / b_divisor, mask=mask_m)


@triton.jit(do_not_specialize=["key", "threshold"])
def edge_attention_bwd_kernel_tile_rows(
    p_q: tl.tensor, p_k: tl.tensor, p_v: tl.tensor, p_u: tl.tensor, p_a: tl.tensor,
    p_mask: tl.tensor, p_base: tl.tensor, p_table: tl.tensor, p_items: tl.tensor,
    p_lse: tl.tensor, p_delta: tl.tensor, p_do: tl.tensor, p_dz: tl.tensor, p_dq: tl.tensor, p_du: tl.tensor,
    scale: float, key: tl.uint64, threshold: tl.int32, grow: float,
    H: tl.constexpr, D: tl.constexpr, F: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr,
    PRECISION: tl.constexpr, USE_DROPOUT: tl.constexpr, UPCAST: tl.constexpr,
) -> None:  # fmt: skip
    """Compute ``dq`` and ``du`` of a tile of rows: the rows of equation (8)."""
    i_head, tile, node, word, edge, n_nodes = _load_item(p_items, p_table, H)
    first = (node * H + i_head) * D
    b_m, b_d = tile * BM + tl.arange(0, BM), tl.arange(0, BD)
    mask_m = b_m < n_nodes
    b_at = (node + b_m) * H + i_head

    b_q = _load_tile(p_q + first, b_m, n_nodes, b_d, H, D, BD, UPCAST)
    b_do = _load_tile(p_do + first, b_m, n_nodes, b_d, H, D, BD, UPCAST)
    b_lse = tl.load(p_lse + b_at, mask=mask_m, other=0.0) * LOG2_E
    b_delta = tl.load(p_delta + b_at, mask=mask_m, other=0.0)
    b_dz = load_numbers(p_dz, b_at, mask_m, F)
    b_u: tl.tuple = ()
    b_du: tl.tuple = ()
    for f in tl.static_range(F):
        b_uf = tl.load(p_u + b_at * F + f, mask=mask_m, other=0.0).to(tl.float32)
        b_u = b_u + (b_uf * (scale * LOG2_E),)
        b_du = b_du + (tl.zeros([BM], tl.float32),)
    b_dq = tl.zeros([BM, BD], tl.float32)
    for j in range(0, n_nodes, 32):
        b_k, b_v, mask, b_edge = _load_columns(
            p_k + first, p_v + first, p_mask, p_base, word, j, b_m, mask_m, n_nodes, b_d, H, D, BD, UPCAST
        )
        word += n_nodes
        b_s = tl.dot(b_q, tl.trans(b_k), input_precision=PRECISION) * (scale * LOG2_E)
        b_dp = tl.dot(b_do, tl.trans(b_v), input_precision=PRECISION)
        b_a: tl.tuple = ()
        for f in tl.static_range(F):  # as in the forward pass
            b_a = b_a + (tl.load(p_a + edge * F + b_edge * F + f, mask=mask, other=0.0),)
            b_s += b_u[f][:, None] * b_a[f]
            b_dp += b_dz[f][:, None] * b_a[f]
        b_p = tl.exp2(tl.where(mask, b_s - b_lse[:, None], float("-inf")))
        b_ds, _ = differentiate(b_p, b_dp, b_delta[:, None], edge + b_edge, i_head, key, threshold, grow, USE_DROPOUT)
        b_next: tl.tuple = ()
        for f in tl.static_range(F):
            b_next = b_next + (b_du[f] + tl.sum(b_ds * b_a[f], axis=1),)
        b_du = b_next
        b_dq = tl.dot(b_ds.to(b_k.dtype), b_k, b_dq, input_precision=PRECISION)

    _store_tile(p_dq, b_at, b_d, mask_m, b_dq * scale, D)
    for f in tl.static_range(F):
        tl.store(p_du + b_at * F + f, b_du[f] * scale, mask=mask_m)


@triton.jit(do_not_specialize=["key", "threshold"])
def edge_attention_bwd_kernel_tile_columns(
    p_q: tl.tensor, p_k: tl.tensor, p_v: tl.tensor, p_u: tl.tensor, p_a: tl.tensor,
    p_mask: tl.tensor, p_base: tl.tensor, p_table: tl.tensor, p_items: tl.tensor,  # items: tiles of 64 columns
    p_lse: tl.tensor, p_delta: tl.tensor, p_do: tl.tensor, p_dz: tl.tensor, p_dk: tl.tensor, p_dv: tl.tensor,
    scale: float, key: tl.uint64, threshold: tl.int32, grow: float,
    H: tl.constexpr, D: tl.constexpr, F: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr,
    PRECISION: tl.constexpr, USE_DROPOUT: tl.constexpr, UPCAST: tl.constexpr,
) -> None:  # fmt: skip
    """Compute ``dk`` and ``dv`` of 64 columns, the columns of equation (8), by transposed tiles."""
    i_head, tile, node, word, edge, n_nodes = _load_item(p_items, p_table, H)
    first = (node * H + i_head) * D
    b_c, b_d = tl.arange(0, 64), tl.arange(0, BD)
    b_j = tile * 64 + b_c
    is_second = (b_c >= 32)[:, None]
    at_word = word + tile.to(tl.int64) * 2 * n_nodes
    has_second = tile * 64 + 32 < n_nodes

    b_k = _load_tile(p_k + first, b_j, n_nodes, b_d, H, D, BD, UPCAST)
    b_v = _load_tile(p_v + first, b_j, n_nodes, b_d, H, D, BD, UPCAST)
    b_dk = tl.zeros([64, BD], tl.float32)
    b_dv = tl.zeros([64, BD], tl.float32)
    for i in range(0, n_nodes, BM):
        b_i = i + tl.arange(0, BM)
        mask_i = b_i < n_nodes
        mask_2 = mask_i & has_second
        b_word_1 = tl.load(p_mask + at_word + b_i, mask=mask_i, other=0)[None, :]
        b_word_2 = tl.load(p_mask + at_word + n_nodes + b_i, mask=mask_2, other=0)[None, :]
        b_base_1 = tl.load(p_base + at_word + b_i, mask=mask_i, other=0)[None, :]
        b_base_2 = tl.load(p_base + at_word + n_nodes + b_i, mask=mask_2, other=0)[None, :]
        b_word = tl.where(is_second, b_word_2, b_word_1)
        b_base = tl.where(is_second, b_base_2, b_base_1)
        b_at = (node + b_i) * H + i_head
        b_q = _load_tile(p_q + first, b_i, n_nodes, b_d, H, D, BD, UPCAST)
        b_do = _load_tile(p_do + first, b_i, n_nodes, b_d, H, D, BD, UPCAST)
        b_lse = tl.load(p_lse + b_at, mask=mask_i, other=0.0)[None, :] * LOG2_E
        b_delta = tl.load(p_delta + b_at, mask=mask_i, other=0.0)[None, :]
        mask, b_edge = _place_edges(b_word, b_base, (b_c % 32)[:, None])
        b_s = tl.dot(b_k, tl.trans(b_q), input_precision=PRECISION) * (scale * LOG2_E)
        b_dp = tl.dot(b_v, tl.trans(b_do), input_precision=PRECISION)
        for f in tl.static_range(F):
            b_a = tl.load(p_a + edge * F + b_edge * F + f, mask=mask, other=0.0)
            b_u = tl.load(p_u + b_at * F + f, mask=mask_i, other=0.0).to(tl.float32) * (scale * LOG2_E)
            b_dz = tl.load(p_dz + b_at * F + f, mask=mask_i, other=0.0).to(tl.float32)
            b_s += b_u[None, :] * b_a
            b_dp += b_dz[None, :] * b_a
        b_p = tl.exp2(tl.where(mask, b_s - b_lse, float("-inf")))
        b_ds, b_kept = differentiate(
            b_p, b_dp, b_delta, edge + b_edge, i_head, key, threshold, grow, USE_DROPOUT
        )  # fmt: skip
        b_dv = tl.dot(b_kept.to(b_do.dtype), b_do, b_dv, input_precision=PRECISION)
        b_dk = tl.dot(b_ds.to(b_q.dtype), b_q, b_dk, input_precision=PRECISION)

    b_at = (node + b_j) * H + i_head
    _store_tile(p_dk, b_at, b_d, b_j < n_nodes, b_dk * scale, D)
    _store_tile(p_dv, b_at, b_d, b_j < n_nodes, b_dv, D)
