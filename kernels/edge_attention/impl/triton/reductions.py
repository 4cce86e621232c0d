"""Small kernels around the passes of edge attention: the sum of equation (7), and the parts of long rows.

Arguments of the kernels: o, do are (N, H, D), z, dz (N, H, F), lse and delta (N, H) float32. Parts are float32: maximum
and sum (parts, H), the others of the shape of their results with parts in the place of nodes. Split rows (int32) have
the parts from ``split_part`` (int32, one entry more than rows) on.
"""

from __future__ import annotations

import triton
import triton.language as tl

from musegnn.kernels.edge_attention.impl.triton.common import LN_2


@triton.jit(do_not_specialize=["n"])
def edge_attention_bwd_kernel_delta(
    p_o: tl.tensor, p_do: tl.tensor, p_z: tl.tensor, p_dz: tl.tensor, p_delta: tl.tensor,
    n: tl.int64,  # N * H
    D: tl.constexpr, F: tl.constexpr, BD: tl.constexpr, BM: tl.constexpr,
) -> None:  # fmt: skip
    """Compute ``delta = do . o + dz . z``, the sum over a row in equation (7)."""
    b_n = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    b_d = tl.arange(0, BD)
    mask_n = b_n < n
    mask = mask_n[:, None] & (b_d < D)[None, :]
    b_at = b_n[:, None] * D + b_d[None, :]
    b_o = tl.load(p_o + b_at, mask=mask, other=0.0).to(tl.float32)
    b_do = tl.load(p_do + b_at, mask=mask, other=0.0).to(tl.float32)
    b_delta = tl.sum(b_o * b_do, axis=1)
    for f in tl.static_range(F):
        b_z = tl.load(p_z + b_n * F + f, mask=mask_n, other=0.0).to(tl.float32)
        b_dz = tl.load(p_dz + b_n * F + f, mask=mask_n, other=0.0).to(tl.float32)
        b_delta += b_z * b_dz
    tl.store(p_delta + b_n, b_delta, mask=mask_n)


@triton.jit
def edge_attention_fwd_kernel_merge(
    p_split_row: tl.tensor, p_split_part: tl.tensor,
    p_part_max: tl.tensor, p_part_sum: tl.tensor, p_part_o: tl.tensor, p_part_z: tl.tensor,
    p_o: tl.tensor, p_z: tl.tensor, p_lse: tl.tensor,
    H: tl.constexpr, D: tl.constexpr, F: tl.constexpr, BD: tl.constexpr, BF: tl.constexpr,
) -> None:  # fmt: skip
    """Merge the softmaxes of the parts of one row and head, in order."""
    i_split = tl.program_id(0).to(tl.int64)
    i_head = tl.program_id(1).to(tl.int64)
    b_d, b_f = tl.arange(0, BD), tl.arange(0, BF)
    mask_d, mask_f = b_d < D, b_f < F
    first = tl.load(p_split_part + i_split).to(tl.int64)
    last = tl.load(p_split_part + i_split + 1).to(tl.int64)
    top = tl.load(p_part_max + first * H + i_head)
    for part in range(first + 1, last):
        top = tl.maximum(top, tl.load(p_part_max + part * H + i_head))
    total = 0.0
    b_o = tl.zeros([BD], tl.float32)
    b_z = tl.zeros([BF], tl.float32)
    for part in range(first, last):
        at = part * H + i_head
        weight = tl.exp2(tl.load(p_part_max + at) - top)
        total += weight * tl.load(p_part_sum + at)
        b_o += weight * tl.load(p_part_o + at * D + b_d, mask=mask_d, other=0.0)
        b_z += weight * tl.load(p_part_z + at * F + b_f, mask=mask_f, other=0.0)
    at = tl.load(p_split_row + i_split).to(tl.int64) * H + i_head
    tl.store(p_lse + at, (top + tl.log2(total)) * LN_2)
    tl.store(p_o + at * D + b_d, b_o / total, mask=mask_d)
    tl.store(p_z + at * F + b_f, b_z / total, mask=mask_f)


@triton.jit
def edge_attention_bwd_kernel_sum(
    p_split_row: tl.tensor, p_split_part: tl.tensor, p_part: tl.tensor, p_out: tl.tensor,
    W: tl.constexpr, BW: tl.constexpr,
) -> None:  # fmt: skip
    """Add the parts, (parts, W), of one row of (N, W), in order."""
    i_split = tl.program_id(0).to(tl.int64)
    b_w = tl.program_id(1) * BW + tl.arange(0, BW)
    mask_w = b_w < W
    first = tl.load(p_split_part + i_split).to(tl.int64)
    last = tl.load(p_split_part + i_split + 1).to(tl.int64)
    b_sum = tl.zeros([BW], tl.float32)
    for part in range(first, last):
        b_sum += tl.load(p_part + part * W + b_w, mask=mask_w, other=0.0)
    row = tl.load(p_split_row + i_split).to(tl.int64)
    tl.store(p_out + row * W + b_w, b_sum, mask=mask_w)
