"""What the Triton kernels of edge attention share: dropout, ranks of bits, loads and stores of attributes.

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
def finite(b_max: tl.tensor) -> tl.tensor:
    """Replace the maximum of no score by 0."""
    return tl.where(b_max == float("-inf"), 0.0, b_max)


@triton.jit
def differentiate(
    b_p: tl.tensor, b_dp: tl.tensor, b_delta: tl.tensor, b_edge: tl.tensor, b_head: tl.tensor,
    key: tl.tensor, threshold: tl.tensor, grow: tl.tensor, USE_DROPOUT: tl.constexpr,
) -> tl.tuple:  # fmt: skip
    """Return the gradients of scores (without the scale) and the weights after dropout: equations (7) and (9)."""
    b_kept = b_p
    if USE_DROPOUT:
        b_keep = keep_weight(b_edge, b_head, key, threshold, grow)
        b_dp = b_dp * b_keep
        b_kept = b_p * b_keep
    return b_p * (b_dp - b_delta), b_kept


@triton.jit
def load_numbers(p_x: tl.tensor, b_at: tl.tensor, mask: tl.tensor, F: tl.constexpr) -> tl.tuple:
    """Load the F numbers of each place as a tuple of float32 blocks, 0 where masked."""
    b_x: tl.tuple = ()
    for f in tl.static_range(F):
        b_x = b_x + (tl.load(p_x + b_at * F + f, mask=mask, other=0.0).to(tl.float32),)
    return b_x


@triton.jit
def store_numbers(p_x: tl.tensor, b_at: tl.tensor, b_x: tl.tuple, mask: tl.tensor, F: tl.constexpr) -> None:
    """Store the F numbers of each place."""
    for f in tl.static_range(F):
        tl.store(p_x + b_at * F + f, b_x[f], mask=mask)
