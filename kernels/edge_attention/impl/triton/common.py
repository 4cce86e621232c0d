"""What the Triton kernels of edge attention share: dropout, ranks of bits, loads of nodes.

Naming: ``p_x`` pointer, ``i_x`` index of the program, ``b_x`` block of values, ``mask_x`` mask, CAPITALS constants of
one compilation. Blocks padded to powers of two start with B: BE edges, BH heads, BD numbers of a head, BM rows.
"""

from __future__ import annotations

import os

import triton
import triton.language as tl
from triton.language.extra import libdevice

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
GOLDEN = tl.constexpr(0x9E3779B97F4A7C15)
MIX_1 = tl.constexpr(0xBF58476D1CE4E5B9)
MIX_2 = tl.constexpr(0x94D049BB133111EB)


@triton.jit
def _mix(b_x: tl.tensor) -> tl.tensor:
    b_x = (b_x ^ (b_x >> 30)) * MIX_1
    b_x = (b_x ^ (b_x >> 27)) * MIX_2
    return b_x ^ (b_x >> 31)


@triton.jit
def keep_weight(
    b_edge: tl.tensor, b_head: tl.tensor, key: tl.tensor, threshold: tl.tensor, grow: tl.tensor
) -> tl.tensor:
    """Return 0 or the growth of a weight, equation (9) of the README; the arguments broadcast."""
    b_bits = _mix(_mix(b_edge.to(tl.uint64) * GOLDEN + key) + (b_head + 1).to(tl.uint64) * MIX_1)
    return tl.where((b_bits >> 40).to(tl.int32) < threshold, 0.0, grow)


@triton.jit
def _count_bits_by_shifts(b_word: tl.tensor) -> tl.tensor:
    b_x = b_word.to(tl.uint32, bitcast=True)
    b_x = b_x - ((b_x >> 1) & 0x55555555)
    b_x = (b_x & 0x33333333) + ((b_x >> 2) & 0x33333333)
    b_x = (b_x + (b_x >> 4)) & 0x0F0F0F0F
    b_x = b_x + (b_x >> 8)
    b_x = b_x + (b_x >> 16)
    return (b_x & 0x3F).to(tl.int32)


@triton.jit
def _count_bits_by_instruction(b_word: tl.tensor) -> tl.tensor:
    return libdevice.popc(b_word)


# The interpreter has no libdevice.
count_bits = _count_bits_by_shifts if INTERPRETED else _count_bits_by_instruction


@triton.jit
def load_node(
    p_x: tl.tensor, node: tl.tensor, b_h: tl.tensor, b_d: tl.tensor, H: tl.constexpr, D: tl.constexpr, BD: tl.constexpr
) -> tl.tensor:
    """Load one node's heads from (N, H, D) as (BH, BD) float32, 0 beyond H and D."""
    p_block = p_x + node * (H * D) + b_h[:, None] * D + b_d[None, :]
    mask = (b_h < H)[:, None]
    if BD > D:
        mask = mask & (b_d < D)[None, :]
    return tl.load(p_block, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def gather_nodes(
    p_x: tl.tensor,
    b_node: tl.tensor,
    mask_e: tl.tensor,
    b_h: tl.tensor,
    b_d: tl.tensor,
    H: tl.constexpr,
    D: tl.constexpr,
    BH: tl.constexpr,
    BD: tl.constexpr,
) -> tl.tensor:
    """Gather nodes from (N, H, D) as (BE, BH, BD) float32, 0 where masked and beyond H and D."""
    p_block = (p_x + b_node * (H * D))[:, None, None] + (b_h[:, None] * D + b_d[None, :])[None, :, :]
    mask = mask_e[:, None, None]
    if H % BH != 0:
        mask = mask & (b_h < H)[None, :, None]
    if BD > D:
        mask = mask & (b_d < D)[None, None, :]
    return tl.load(p_block, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def gather_attributes(
    p_a: tl.tensor, b_edge: tl.tensor, mask_e: tl.tensor, f: tl.constexpr, F: tl.constexpr
) -> tl.tensor:
    """Load attribute f of edges from (E, F) as float32."""
    return tl.load(p_a + b_edge * F + f, mask=mask_e, other=0.0).to(tl.float32)
