"""Edge attention over lists of edges: a program owns one row (or column), or one part of a long one.

BE edges are gathered per step. Each of the BE slots keeps a softmax of its own (maximum, sum, weighted sums), so that
no step waits for another thread; the slots are merged once, at the end. Scores are in base 2.

Arguments of the kernels: q, k, v, o and their gradients are (N, H, D), u, z and theirs (N, H, F), a (E, F), lse and
delta (N, H) float32, col and row (E,) int32, perm (E,) int32 or int64. An item is a row (int32), its first edge
(int64), the number of edges (int32) and a part (int32), the longest items first. Part -1 writes its result; others
write a partial result in float32, of the same shape with parts in the place of nodes, that the kernels of
``reductions.py`` put together in order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from musegnn.kernels.edge_attention.impl.triton.common import (
    LN_2,
    LOG2_E,
    differentiate,
    finite,
    keep_weight,
    load_numbers,
    store_numbers,
)


@triton.jit
def _load_item(p_row: tl.tensor, p_start: tl.tensor, p_count: tl.tensor) -> tl.tuple:
    """Return row (or column), first edge and number of edges of the program's item."""
    i_item = tl.program_id(0).to(tl.int64)
    return tl.load(p_row + i_item).to(tl.int64), tl.load(p_start + i_item), tl.load(p_count + i_item)


@triton.jit
def _load_part(p_part: tl.tensor, USE_PARTS: tl.constexpr) -> tl.tensor:
    """Return the part of the program's item, -1 for a whole row."""
    part: tl.tensor = -1
    if USE_PARTS:
        part = tl.load(p_part + tl.program_id(0).to(tl.int64))
    return part


@triton.jit
def _load_node(
    p_x: tl.tensor, node: tl.tensor, b_h: tl.tensor, b_d: tl.tensor, H: tl.constexpr, D: tl.constexpr, BD: tl.constexpr
) -> tl.tensor:
    """Load one node's heads from (N, H, D) as (BH, BD) float32, 0 beyond H and D."""
    p_block = p_x + node * (H * D) + b_h[:, None] * D + b_d[None, :]
    mask = (b_h < H)[:, None]
    if BD > D:
        mask = mask & (b_d < D)[None, :]
    return tl.load(p_block, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _store_node(
    p_x: tl.tensor, node: tl.tensor, b_h: tl.tensor, b_d: tl.tensor, b_x: tl.tensor, H: tl.constexpr, D: tl.constexpr
) -> None:
    """Store one node's (or part's) heads."""
    p_block = p_x + (node.to(tl.int64) * H + b_h)[:, None] * D + b_d[None, :]
    tl.store(p_block, b_x, mask=(b_h < H)[:, None] & (b_d < D)[None, :])


@triton.jit
def _gather_nodes(
    p_x: tl.tensor, b_node: tl.tensor, mask_e: tl.tensor, b_h: tl.tensor, b_d: tl.tensor,
    H: tl.constexpr, D: tl.constexpr, BH: tl.constexpr, BD: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Gather nodes from (N, H, D) as (BE, BH, BD) float32, 0 where masked and beyond H and D."""
    p_block = (p_x + b_node * (H * D))[:, None, None] + (b_h[:, None] * D + b_d[None, :])[None, :, :]
    mask = mask_e[:, None, None]
    if H % BH != 0:
        mask = mask & (b_h < H)[None, :, None]
    if BD > D:
        mask = mask & (b_d < D)[None, None, :]
    return tl.load(p_block, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _dot(b_rows: tl.tensor, b_x: tl.tensor, b_a: tl.tuple, b_y: tl.tuple, F: tl.constexpr) -> tl.tensor:
    """Return the products of gathered rows with a node's numbers, plus those of the edges' attributes, (BE, BH)."""
    b_s = tl.sum(b_rows * b_x[None, :, :], axis=2)
    for f in tl.static_range(F):
        b_s += b_a[f][:, None] * b_y[f]
    return b_s


@triton.jit
def _zeros(BE: tl.constexpr, BH: tl.constexpr, F: tl.constexpr) -> tl.tuple:
    b_x: tl.tuple = ()
    for _ in tl.static_range(F):
        b_x = b_x + (tl.zeros([BE, BH], tl.float32),)
    return b_x


@triton.jit(do_not_specialize=["key", "threshold"])
def edge_attention_fwd_kernel_csr(
    p_q: tl.tensor, p_k: tl.tensor, p_v: tl.tensor, p_u: tl.tensor, p_a: tl.tensor, p_col: tl.tensor,
    p_item_row: tl.tensor, p_item_start: tl.tensor, p_item_count: tl.tensor, p_item_part: tl.tensor,
    p_o: tl.tensor, p_z: tl.tensor, p_lse: tl.tensor,
    p_part_max: tl.tensor, p_part_sum: tl.tensor, p_part_o: tl.tensor, p_part_z: tl.tensor,
    scale: float, key: tl.uint64, threshold: tl.int32, grow: float,
    H: tl.constexpr, D: tl.constexpr, F: tl.constexpr, BE: tl.constexpr, BH: tl.constexpr, BD: tl.constexpr,
    USE_PARTS: tl.constexpr, USE_DROPOUT: tl.constexpr,
) -> None:  # fmt: skip
    """Compute ``o``, ``z`` and ``lse`` of rows: equations (1) to (4)."""
    row, start, count = _load_item(p_item_row, p_item_start, p_item_count)
    b_h, b_d, b_e = tl.program_id(1) * BH + tl.arange(0, BH), tl.arange(0, BD), tl.arange(0, BE)
    mask_h = b_h < H

    b_q = _load_node(p_q, row, b_h, b_d, H, D, BD)
    b_u = load_numbers(p_u, row * H + b_h, mask_h, F)
    b_z = _zeros(BE, BH, F)
    b_max = tl.full([BE, BH], float("-inf"), tl.float32)
    b_sum = tl.zeros([BE, BH], tl.float32)
    b_o = tl.zeros([BE, BH, BD], tl.float32)
    for i in range(0, count, BE):
        mask_e = i + b_e < count
        b_edge = start + i + b_e
        b_col = tl.load(p_col + b_edge, mask=mask_e, other=0).to(tl.int64)
        b_k = _gather_nodes(p_k, b_col, mask_e, b_h, b_d, H, D, BH, BD)
        b_v = _gather_nodes(p_v, b_col, mask_e, b_h, b_d, H, D, BH, BD)
        b_a = load_numbers(p_a, b_edge, mask_e, F)
        b_s = _dot(b_k, b_q, b_a, b_u, F)
        b_s = tl.where(mask_e[:, None], b_s * (scale * LOG2_E), float("-inf"))
        b_new = tl.maximum(b_max, b_s)
        b_base = finite(b_new)
        b_shrink = tl.exp2(b_max - b_base)
        b_p = tl.exp2(b_s - b_base)
        b_max = b_new
        b_sum = b_sum * b_shrink + b_p
        if USE_DROPOUT:
            b_p = b_p * keep_weight(b_edge[:, None], b_h[None, :], key, threshold, grow)
        b_o = b_o * b_shrink[:, :, None] + b_p[:, :, None] * b_v
        b_next: tl.tuple = ()
        for f in tl.static_range(F):
            b_next = b_next + (b_z[f] * b_shrink + b_p * b_a[f][:, None],)
        b_z = b_next

    b_base = finite(tl.max(b_max, axis=0))
    b_weight = tl.exp2(b_max - b_base[None, :])
    b_total = tl.sum(b_sum * b_weight, axis=0)
    b_out = tl.sum(b_o * b_weight[:, :, None], axis=0)
    b_out_z: tl.tuple = ()
    for f in tl.static_range(F):
        b_out_z = b_out_z + (tl.sum(b_z[f] * b_weight, axis=0),)
    part = _load_part(p_item_part, USE_PARTS)
    if part >= 0:
        at = part.to(tl.int64) * H + b_h
        tl.store(p_part_max + at, b_base, mask=mask_h)
        tl.store(p_part_sum + at, b_total, mask=mask_h)
        _store_node(p_part_o, part, b_h, b_d, b_out, H, D)
        store_numbers(p_part_z, at, b_out_z, mask_h, F)
    else:
        at = row * H + b_h
        b_divisor = tl.where(b_total == 0.0, 1.0, b_total)
        tl.store(p_lse + at, (b_base + tl.log2(b_divisor)) * LN_2, mask=mask_h)
        _store_node(p_o, row, b_h, b_d, b_out / b_divisor[:, None], H, D)
        for f in tl.static_range(F):
            tl.store(p_z + at * F + f, b_out_z[f] / b_divisor, mask=mask_h)


@triton.jit(do_not_specialize=["key", "threshold", "n_edges"])
def edge_attention_bwd_kernel_csr_rows(
    p_q: tl.tensor, p_k: tl.tensor, p_v: tl.tensor, p_u: tl.tensor, p_a: tl.tensor, p_col: tl.tensor,
    p_item_row: tl.tensor, p_item_start: tl.tensor, p_item_count: tl.tensor, p_item_part: tl.tensor,
    p_lse: tl.tensor, p_delta: tl.tensor, p_do: tl.tensor, p_dz: tl.tensor,
    p_dq: tl.tensor, p_du: tl.tensor,
    p_da: tl.tensor,  # (groups of heads, E, F) float32
    p_part_dq: tl.tensor, p_part_du: tl.tensor,
    n_edges: tl.int64, scale: float, key: tl.uint64, threshold: tl.int32, grow: float,
    H: tl.constexpr, D: tl.constexpr, F: tl.constexpr, BE: tl.constexpr, BH: tl.constexpr, BD: tl.constexpr,
    USE_PARTS: tl.constexpr, USE_DROPOUT: tl.constexpr, USE_DA: tl.constexpr,
) -> None:  # fmt: skip
    """Compute ``dq``, ``du`` and, where asked, ``da``: the rows of equation (8)."""
    row, start, count = _load_item(p_item_row, p_item_start, p_item_count)
    i_group = tl.program_id(1).to(tl.int64)
    b_h, b_d, b_e = tl.program_id(1) * BH + tl.arange(0, BH), tl.arange(0, BD), tl.arange(0, BE)
    mask_h = b_h < H

    at = row * H + b_h
    b_q = _load_node(p_q, row, b_h, b_d, H, D, BD)
    b_do = _load_node(p_do, row, b_h, b_d, H, D, BD)
    b_lse = tl.load(p_lse + at, mask=mask_h, other=0.0)[None, :] * LOG2_E
    b_delta = tl.load(p_delta + at, mask=mask_h, other=0.0)[None, :]
    b_u = load_numbers(p_u, at, mask_h, F)
    b_dz = load_numbers(p_dz, at, mask_h, F)
    b_du = _zeros(BE, BH, F)
    b_dq = tl.zeros([BE, BH, BD], tl.float32)
    for i in range(0, count, BE):
        mask_e = i + b_e < count
        b_edge = start + i + b_e
        b_col = tl.load(p_col + b_edge, mask=mask_e, other=0).to(tl.int64)
        b_k = _gather_nodes(p_k, b_col, mask_e, b_h, b_d, H, D, BH, BD)
        b_v = _gather_nodes(p_v, b_col, mask_e, b_h, b_d, H, D, BH, BD)
        b_a = load_numbers(p_a, b_edge, mask_e, F)
        b_s = _dot(b_k, b_q, b_a, b_u, F)
        b_dp = _dot(b_v, b_do, b_a, b_dz, F)
        b_s = tl.where(mask_e[:, None], b_s * (scale * LOG2_E), float("-inf"))
        b_p = tl.exp2(b_s - b_lse)
        b_ds, b_kept = differentiate(
            b_p, b_dp, b_delta, b_edge[:, None], b_h[None, :], key, threshold, grow, USE_DROPOUT
        )  # fmt: skip
        b_ds = b_ds * scale
        b_dq += b_ds[:, :, None] * b_k
        b_next: tl.tuple = ()
        for f in tl.static_range(F):
            b_next = b_next + (b_du[f] + b_ds * b_a[f][:, None],)
            if USE_DA:
                b_da = tl.sum(b_ds * b_u[f][None, :] + b_kept * b_dz[f][None, :], axis=1)
                tl.store(p_da + (i_group * n_edges + b_edge) * F + f, b_da, mask=mask_e)
        b_du = b_next

    b_out = tl.sum(b_dq, axis=0)
    b_out_u: tl.tuple = ()
    for f in tl.static_range(F):
        b_out_u = b_out_u + (tl.sum(b_du[f], axis=0),)
    part = _load_part(p_item_part, USE_PARTS)
    if part >= 0:
        _store_node(p_part_dq, part, b_h, b_d, b_out, H, D)
        store_numbers(p_part_du, part.to(tl.int64) * H + b_h, b_out_u, mask_h, F)
    else:
        _store_node(p_dq, row, b_h, b_d, b_out, H, D)
        store_numbers(p_du, at, b_out_u, mask_h, F)


@triton.jit(do_not_specialize=["key", "threshold"])
def edge_attention_bwd_kernel_csr_columns(
    p_q: tl.tensor, p_k: tl.tensor, p_v: tl.tensor, p_u: tl.tensor, p_a: tl.tensor,
    p_row: tl.tensor, p_perm: tl.tensor,  # in CSC order; perm: position in CSR order
    p_item_row: tl.tensor, p_item_start: tl.tensor, p_item_count: tl.tensor, p_item_part: tl.tensor,
    p_lse: tl.tensor, p_delta: tl.tensor, p_do: tl.tensor, p_dz: tl.tensor,
    p_dk: tl.tensor, p_dv: tl.tensor, p_part_dk: tl.tensor, p_part_dv: tl.tensor,
    scale: float, key: tl.uint64, threshold: tl.int32, grow: float,
    H: tl.constexpr, D: tl.constexpr, F: tl.constexpr, BE: tl.constexpr, BH: tl.constexpr, BD: tl.constexpr,
    USE_PARTS: tl.constexpr, USE_DROPOUT: tl.constexpr,
) -> None:  # fmt: skip
    """Compute ``dk`` and ``dv``: the columns of equation (8)."""
    column, start, count = _load_item(p_item_row, p_item_start, p_item_count)
    b_h, b_d, b_e = tl.program_id(1) * BH + tl.arange(0, BH), tl.arange(0, BD), tl.arange(0, BE)

    b_k = _load_node(p_k, column, b_h, b_d, H, D, BD)
    b_v = _load_node(p_v, column, b_h, b_d, H, D, BD)
    b_dk = tl.zeros([BE, BH, BD], tl.float32)
    b_dv = tl.zeros([BE, BH, BD], tl.float32)
    for i in range(0, count, BE):
        mask_e = i + b_e < count
        mask_eh = mask_e[:, None] & (b_h < H)[None, :]
        b_entry = start + i + b_e
        b_row = tl.load(p_row + b_entry, mask=mask_e, other=0).to(tl.int64)
        b_edge = tl.load(p_perm + b_entry, mask=mask_e, other=0).to(tl.int64)
        b_at = b_row[:, None] * H + b_h[None, :]
        b_q = _gather_nodes(p_q, b_row, mask_e, b_h, b_d, H, D, BH, BD)
        b_do = _gather_nodes(p_do, b_row, mask_e, b_h, b_d, H, D, BH, BD)
        b_s = tl.sum(b_q * b_k[None, :, :], axis=2)
        b_dp = tl.sum(b_do * b_v[None, :, :], axis=2)
        for f in tl.static_range(F):  # loaded one by one as they are used: together they spill registers
            b_a = tl.load(p_a + b_edge * F + f, mask=mask_e, other=0.0).to(tl.float32)[:, None]
            b_s += b_a * tl.load(p_u + b_at * F + f, mask=mask_eh, other=0.0).to(tl.float32)
            b_dp += b_a * tl.load(p_dz + b_at * F + f, mask=mask_eh, other=0.0).to(tl.float32)
        b_lse = tl.load(p_lse + b_at, mask=mask_eh, other=0.0) * LOG2_E
        b_delta = tl.load(p_delta + b_at, mask=mask_eh, other=0.0)
        b_s = tl.where(mask_e[:, None], b_s * (scale * LOG2_E), float("-inf"))
        b_p = tl.exp2(b_s - b_lse)
        b_ds, b_kept = differentiate(
            b_p, b_dp, b_delta, b_edge[:, None], b_h[None, :], key, threshold, grow, USE_DROPOUT
        )  # fmt: skip
        b_dk += (b_ds * scale)[:, :, None] * b_q
        b_dv += b_kept[:, :, None] * b_do

    b_out_k, b_out_v = tl.sum(b_dk, axis=0), tl.sum(b_dv, axis=0)
    part = _load_part(p_item_part, USE_PARTS)
    if part >= 0:
        _store_node(p_part_dk, part, b_h, b_d, b_out_k, H, D)
        _store_node(p_part_dv, part, b_h, b_d, b_out_v, H, D)
    else:
        _store_node(p_dk, column, b_h, b_d, b_out_k, H, D)
        _store_node(p_dv, column, b_h, b_d, b_out_v, H, D)
