"""Edge attention over lists of edges: a program owns one row (or column), or one part of a long one.

BE edges are gathered per step. Each of the BE slots keeps a softmax of its own (maximum, sum, weighted sums), so that
no step waits for another thread; the slots are merged once, at the end. Scores are in base 2.

Items: (row, first edge, number of edges, part), the longest first. Part -1 writes its result; others write a partial
result that the kernels of ``parts.py`` put together in order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from musegnn.kernels.edge_attention.impl.triton.common import (
    LN_2,
    LOG2_E,
    gather_attributes,
    gather_nodes,
    keep_weight,
    load_node,
)


@triton.jit(do_not_specialize=["key", "threshold"])
def edge_attention_fwd_kernel_csr(
    p_q: tl.tensor,  # (N, H, D), as p_k, p_v, p_o
    p_k: tl.tensor,
    p_v: tl.tensor,
    p_u: tl.tensor,  # (N, H, F), as p_z
    p_a: tl.tensor,  # (E, F)
    p_col: tl.tensor,  # (E,) int32
    p_item_row: tl.tensor,  # (items,) int32
    p_item_start: tl.tensor,  # (items,) int64
    p_item_count: tl.tensor,  # (items,) int32
    p_item_part: tl.tensor,  # (items,) int32
    p_o: tl.tensor,
    p_z: tl.tensor,
    p_lse: tl.tensor,  # (N, H) float32
    p_part_max: tl.tensor,  # (parts, H) float32, as p_part_sum
    p_part_sum: tl.tensor,
    p_part_o: tl.tensor,  # (parts, H, D) float32
    p_part_z: tl.tensor,  # (parts, H, F) float32
    scale: float,
    key: tl.uint64,
    threshold: tl.int32,
    grow: float,
    H: tl.constexpr,
    D: tl.constexpr,
    F: tl.constexpr,
    BE: tl.constexpr,
    BH: tl.constexpr,
    BD: tl.constexpr,
    USE_PARTS: tl.constexpr,
    USE_DROPOUT: tl.constexpr,
) -> None:
    """Compute ``o``, ``z`` and ``lse`` of rows: equations (1) to (4)."""
    i_item = tl.program_id(0).to(tl.int64)
    b_h = tl.program_id(1) * BH + tl.arange(0, BH)
    b_d, b_e = tl.arange(0, BD), tl.arange(0, BE)
    row = tl.load(p_item_row + i_item).to(tl.int64)
    start = tl.load(p_item_start + i_item)
    count = tl.load(p_item_count + i_item)
    mask_h = b_h < H

    b_q = load_node(p_q, row, b_h, b_d, H, D, BD)
    b_u: tl.tuple = ()
    b_z: tl.tuple = ()
    for f in tl.static_range(F):
        b_u = b_u + (tl.load(p_u + (row * H + b_h) * F + f, mask=mask_h, other=0.0).to(tl.float32),)
        b_z = b_z + (tl.zeros([BE, BH], tl.float32),)
    b_max = tl.full([BE, BH], float("-inf"), tl.float32)
    b_sum = tl.zeros([BE, BH], tl.float32)
    b_o = tl.zeros([BE, BH, BD], tl.float32)
    for i in range(0, count, BE):
        mask_e = i + b_e < count
        b_edge = start + i + b_e
        b_col = tl.load(p_col + b_edge, mask=mask_e, other=0).to(tl.int64)
        b_k = gather_nodes(p_k, b_col, mask_e, b_h, b_d, H, D, BH, BD)
        b_v = gather_nodes(p_v, b_col, mask_e, b_h, b_d, H, D, BH, BD)
        b_s = tl.sum(b_k * b_q[None, :, :], axis=2)
        for f in tl.static_range(F):
            b_s += gather_attributes(p_a, b_edge, mask_e, f, F)[:, None] * b_u[f][None, :]
        b_s = tl.where(mask_e[:, None], b_s * (scale * LOG2_E), float("-inf"))
        b_new = tl.maximum(b_max, b_s)
        b_base = tl.where(b_new == float("-inf"), 0.0, b_new)
        b_shrink = tl.exp2(b_max - b_base)
        b_p = tl.exp2(b_s - b_base)
        b_max = b_new
        b_sum = b_sum * b_shrink + b_p
        if USE_DROPOUT:
            b_p = b_p * keep_weight(b_edge[:, None], b_h[None, :], key, threshold, grow)
        b_o = b_o * b_shrink[:, :, None] + b_p[:, :, None] * b_v
        b_next: tl.tuple = ()
        for f in tl.static_range(F):
            b_a = gather_attributes(p_a, b_edge, mask_e, f, F)
            b_next = b_next + (b_z[f] * b_shrink + b_p * b_a[:, None],)
        b_z = b_next

    b_top = tl.max(b_max, axis=0)
    b_base = tl.where(b_top == float("-inf"), 0.0, b_top)
    b_weight = tl.exp2(b_max - b_base[None, :])
    b_total = tl.sum(b_sum * b_weight, axis=0)
    b_out = tl.sum(b_o * b_weight[:, :, None], axis=0)
    mask_hd = mask_h[:, None] & (b_d < D)[None, :]
    part: tl.tensor = -1
    if USE_PARTS:
        part = tl.load(p_item_part + i_item)
    if part >= 0:
        at = part.to(tl.int64) * H + b_h
        tl.store(p_part_max + at, b_base, mask=mask_h)
        tl.store(p_part_sum + at, b_total, mask=mask_h)
        tl.store(p_part_o + at[:, None] * D + b_d[None, :], b_out, mask=mask_hd)
        for f in tl.static_range(F):
            tl.store(p_part_z + at * F + f, tl.sum(b_z[f] * b_weight, axis=0), mask=mask_h)
    else:
        at = row * H + b_h
        b_divisor = tl.where(b_total == 0.0, 1.0, b_total)
        tl.store(p_lse + at, (b_base + tl.log2(b_divisor)) * LN_2, mask=mask_h)
        tl.store(p_o + at[:, None] * D + b_d[None, :], b_out / b_divisor[:, None], mask=mask_hd)
        for f in tl.static_range(F):
            tl.store(p_z + at * F + f, tl.sum(b_z[f] * b_weight, axis=0) / b_divisor, mask=mask_h)


@triton.jit(do_not_specialize=["key", "threshold", "n_edges"])
def edge_attention_bwd_kernel_csr_rows(
    p_q: tl.tensor,  # (N, H, D), as p_k, p_v, p_do, p_dq
    p_k: tl.tensor,
    p_v: tl.tensor,
    p_u: tl.tensor,  # (N, H, F), as p_dz, p_du
    p_a: tl.tensor,  # (E, F)
    p_col: tl.tensor,  # (E,) int32
    p_item_row: tl.tensor,  # (items,) int32
    p_item_start: tl.tensor,  # (items,) int64
    p_item_count: tl.tensor,  # (items,) int32
    p_item_part: tl.tensor,  # (items,) int32
    p_lse: tl.tensor,  # (N, H) float32, as p_delta
    p_delta: tl.tensor,
    p_do: tl.tensor,
    p_dz: tl.tensor,
    p_dq: tl.tensor,
    p_du: tl.tensor,
    p_da: tl.tensor,  # (groups of heads, E, F) float32
    p_part_dq: tl.tensor,  # (parts, H, D) float32
    p_part_du: tl.tensor,  # (parts, H, F) float32
    n_edges: tl.int64,
    scale: float,
    key: tl.uint64,
    threshold: tl.int32,
    grow: float,
    H: tl.constexpr,
    D: tl.constexpr,
    F: tl.constexpr,
    BE: tl.constexpr,
    BH: tl.constexpr,
    BD: tl.constexpr,
    USE_PARTS: tl.constexpr,
    USE_DROPOUT: tl.constexpr,
    USE_DA: tl.constexpr,
) -> None:
    """Compute ``dq``, ``du`` and, where asked, ``da``: the rows of equation (8)."""
    i_item = tl.program_id(0).to(tl.int64)
    i_group = tl.program_id(1).to(tl.int64)
    b_h = tl.program_id(1) * BH + tl.arange(0, BH)
    b_d, b_e = tl.arange(0, BD), tl.arange(0, BE)
    row = tl.load(p_item_row + i_item).to(tl.int64)
    start = tl.load(p_item_start + i_item)
    count = tl.load(p_item_count + i_item)
    mask_h = b_h < H

    at = row * H + b_h
    b_q = load_node(p_q, row, b_h, b_d, H, D, BD)
    b_do = load_node(p_do, row, b_h, b_d, H, D, BD)
    b_lse = tl.load(p_lse + at, mask=mask_h, other=0.0) * LOG2_E
    b_delta = tl.load(p_delta + at, mask=mask_h, other=0.0)
    b_u: tl.tuple = ()
    b_dz: tl.tuple = ()
    b_du: tl.tuple = ()
    for f in tl.static_range(F):
        b_u = b_u + (tl.load(p_u + at * F + f, mask=mask_h, other=0.0).to(tl.float32),)
        b_dz = b_dz + (tl.load(p_dz + at * F + f, mask=mask_h, other=0.0).to(tl.float32),)
        b_du = b_du + (tl.zeros([BE, BH], tl.float32),)
    b_dq = tl.zeros([BE, BH, BD], tl.float32)
    for i in range(0, count, BE):
        mask_e = i + b_e < count
        b_edge = start + i + b_e
        b_col = tl.load(p_col + b_edge, mask=mask_e, other=0).to(tl.int64)
        b_k = gather_nodes(p_k, b_col, mask_e, b_h, b_d, H, D, BH, BD)
        b_v = gather_nodes(p_v, b_col, mask_e, b_h, b_d, H, D, BH, BD)
        b_s = tl.sum(b_k * b_q[None, :, :], axis=2)
        b_dp = tl.sum(b_v * b_do[None, :, :], axis=2)
        for f in tl.static_range(F):
            b_a = gather_attributes(p_a, b_edge, mask_e, f, F)
            b_s += b_a[:, None] * b_u[f][None, :]
            b_dp += b_a[:, None] * b_dz[f][None, :]
        b_s = tl.where(mask_e[:, None], b_s * (scale * LOG2_E), float("-inf"))
        b_p = tl.exp2(b_s - b_lse[None, :])
        b_kept = b_p
        if USE_DROPOUT:
            b_keep = keep_weight(b_edge[:, None], b_h[None, :], key, threshold, grow)
            b_dp = b_dp * b_keep
            b_kept = b_p * b_keep
        b_ds = b_p * (b_dp - b_delta[None, :]) * scale
        b_dq += b_ds[:, :, None] * b_k
        b_next: tl.tuple = ()
        for f in tl.static_range(F):
            b_a = gather_attributes(p_a, b_edge, mask_e, f, F)
            b_next = b_next + (b_du[f] + b_ds * b_a[:, None],)
            if USE_DA:
                b_da = tl.sum(b_ds * b_u[f][None, :] + b_kept * b_dz[f][None, :], axis=1)
                tl.store(p_da + (i_group * n_edges + b_edge) * F + f, b_da, mask=mask_e)
        b_du = b_next

    b_out = tl.sum(b_dq, axis=0)
    mask_hd = mask_h[:, None] & (b_d < D)[None, :]
    part: tl.tensor = -1
    if USE_PARTS:
        part = tl.load(p_item_part + i_item)
    if part >= 0:
        at = part.to(tl.int64) * H + b_h
        tl.store(p_part_dq + at[:, None] * D + b_d[None, :], b_out, mask=mask_hd)
        for f in tl.static_range(F):
            tl.store(p_part_du + at * F + f, tl.sum(b_du[f], axis=0), mask=mask_h)
    else:
        tl.store(p_dq + at[:, None] * D + b_d[None, :], b_out, mask=mask_hd)
        for f in tl.static_range(F):
            tl.store(p_du + at * F + f, tl.sum(b_du[f], axis=0), mask=mask_h)


@triton.jit(do_not_specialize=["key", "threshold"])
def edge_attention_bwd_kernel_csr_columns(
    p_q: tl.tensor,  # (N, H, D), as p_k, p_v, p_do, p_dk, p_dv
    p_k: tl.tensor,
    p_v: tl.tensor,
    p_u: tl.tensor,  # (N, H, F), as p_dz
    p_a: tl.tensor,  # (E, F)
    p_row: tl.tensor,  # (E,) int32, in CSC order
    p_perm: tl.tensor,  # (E,) int32 or int64, in CSC order: position in CSR order
    p_item_row: tl.tensor,  # (items,) int32: the column
    p_item_start: tl.tensor,  # (items,) int64
    p_item_count: tl.tensor,  # (items,) int32
    p_item_part: tl.tensor,  # (items,) int32
    p_lse: tl.tensor,  # (N, H) float32, as p_delta
    p_delta: tl.tensor,
    p_do: tl.tensor,
    p_dz: tl.tensor,
    p_dk: tl.tensor,
    p_dv: tl.tensor,
    p_part_dk: tl.tensor,  # (parts, H, D) float32, as p_part_dv
    p_part_dv: tl.tensor,
    scale: float,
    key: tl.uint64,
    threshold: tl.int32,
    grow: float,
    H: tl.constexpr,
    D: tl.constexpr,
    F: tl.constexpr,
    BE: tl.constexpr,
    BH: tl.constexpr,
    BD: tl.constexpr,
    USE_PARTS: tl.constexpr,
    USE_DROPOUT: tl.constexpr,
) -> None:
    """Compute ``dk`` and ``dv``: the columns of equation (8)."""
    i_item = tl.program_id(0).to(tl.int64)
    b_h = tl.program_id(1) * BH + tl.arange(0, BH)
    b_d, b_e = tl.arange(0, BD), tl.arange(0, BE)
    column = tl.load(p_item_row + i_item).to(tl.int64)
    start = tl.load(p_item_start + i_item)
    count = tl.load(p_item_count + i_item)
    mask_h = b_h < H

    b_k = load_node(p_k, column, b_h, b_d, H, D, BD)
    b_v = load_node(p_v, column, b_h, b_d, H, D, BD)
    b_dk = tl.zeros([BE, BH, BD], tl.float32)
    b_dv = tl.zeros([BE, BH, BD], tl.float32)
    for i in range(0, count, BE):
        mask_e = i + b_e < count
        mask_eh = mask_e[:, None] & mask_h[None, :]
        b_entry = start + i + b_e
        b_row = tl.load(p_row + b_entry, mask=mask_e, other=0).to(tl.int64)
        b_edge = tl.load(p_perm + b_entry, mask=mask_e, other=0).to(tl.int64)
        b_at = b_row[:, None] * H + b_h[None, :]
        b_q = gather_nodes(p_q, b_row, mask_e, b_h, b_d, H, D, BH, BD)
        b_do = gather_nodes(p_do, b_row, mask_e, b_h, b_d, H, D, BH, BD)
        b_s = tl.sum(b_q * b_k[None, :, :], axis=2)
        b_dp = tl.sum(b_do * b_v[None, :, :], axis=2)
        for f in tl.static_range(F):
            b_a = gather_attributes(p_a, b_edge, mask_e, f, F)[:, None]
            b_s += b_a * tl.load(p_u + b_at * F + f, mask=mask_eh, other=0.0).to(tl.float32)
            b_dp += b_a * tl.load(p_dz + b_at * F + f, mask=mask_eh, other=0.0).to(tl.float32)
        b_lse = tl.load(p_lse + b_at, mask=mask_eh, other=0.0) * LOG2_E
        b_delta = tl.load(p_delta + b_at, mask=mask_eh, other=0.0)
        b_s = tl.where(mask_e[:, None], b_s * (scale * LOG2_E), float("-inf"))
        b_p = tl.exp2(b_s - b_lse)
        b_kept = b_p
        if USE_DROPOUT:
            b_keep = keep_weight(b_edge[:, None], b_h[None, :], key, threshold, grow)
            b_dp = b_dp * b_keep
            b_kept = b_p * b_keep
        b_ds = b_p * (b_dp - b_delta) * scale
        b_dk += b_ds[:, :, None] * b_q
        b_dv += b_kept[:, :, None] * b_do

    b_out_k = tl.sum(b_dk, axis=0)
    b_out_v = tl.sum(b_dv, axis=0)
    mask_hd = mask_h[:, None] & (b_d < D)[None, :]
    part: tl.tensor = -1
    if USE_PARTS:
        part = tl.load(p_item_part + i_item)
    if part >= 0:
        b_out = (part.to(tl.int64) * H + b_h)[:, None] * D + b_d[None, :]
        tl.store(p_part_dk + b_out, b_out_k, mask=mask_hd)
        tl.store(p_part_dv + b_out, b_out_v, mask=mask_hd)
    else:
        b_out = (column * H + b_h)[:, None] * D + b_d[None, :]
        tl.store(p_dk + b_out, b_out_k, mask=mask_hd)
        tl.store(p_dv + b_out, b_out_v, mask=mask_hd)
