"""How the Triton kernels are shaped and when tiles are taken. No number here was tuned on a GPU yet."""

from __future__ import annotations

from dataclasses import dataclass

import torch

WORD = 32  # columns of one mask word
TILE_COLUMNS = 2 * WORD  # a column program owns 64, the least that wgmma takes

# Largest number of edge attributes that tiles take, by precision of the products and padded head dimension; where
# there is none, the kernels would spill registers on sm_90 and lists are taken (``python -m
# benchmarks.attention.compile_sm90`` compiles every entry).
TILE_ATTRIBUTES = {
    "half": {16: 4, 32: 4, 64: 4, 128: 4},
    "tf32": {16: 4, 32: 4, 64: 2},
    "tf32x3": {16: 4, 32: 4},
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes that decide between lists of edges and tiles, and where long lists are cut.

    Attributes
    ----------
    tile_density
        A graph takes tiles from this density on.
    longest_part
        Edges of one program over a list; longer rows and columns are split.
    """

    tile_density: float = 0.03
    longest_part: int = 2048


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Shape:
    """Block sizes and settings of one kernel; blocks that a kernel does not have are 0."""

    BD: int
    BE: int = 0
    BH: int = 0
    BM: int = 0
    warps: int = 4
    stages: int = 2


def power_of_two(n: int) -> int:
    """Round up to a power of two."""
    return 1 << max(0, n - 1).bit_length()


def list_shape(n_heads: int, dim: int, *, columns: bool = False) -> Shape:
    """Shape a kernel over lists of edges: all heads at once up to 256 numbers, else groups of heads.

    A program holds about 2048 numbers of every gathered block, half of that where a column sums two blocks.
    """
    bd = power_of_two(dim)
    bh = min(power_of_two(n_heads), max(1, 256 // bd))
    be = min(64, max(2, (1024 if columns else 2048) // (bh * bd)))
    return Shape(BD=bd, BE=be, BH=bh, warps=min(4, max(1, be * bh * bd // 512)))


def tile_shape(precision: str, dim: int, *, columns: bool = False) -> Shape:
    """Shape a kernel over tiles: a program owns 64 rows, or 64 columns and reads BM = 16 rows a step."""
    bd = tile_dim(dim)
    wide = bd == 128 or (bd == 64 and not (columns and precision == "half"))
    return Shape(BD=bd, BM=16 if columns else 64, warps=8 if wide else 4)


def tile_dim(dim: int) -> int:
    """Pad a head dimension to what tensor cores take."""
    return max(16, power_of_two(dim))


def may_tile(precision: str, dim: int, n_attributes: int) -> bool:
    """Return whether tiles take such heads."""
    return n_attributes <= TILE_ATTRIBUTES[precision].get(tile_dim(dim), -1)


def dot_precision(dtype: torch.dtype) -> str:
    """Name how tiles are multiplied: ``half``, or for float32 what ``torch.get_float32_matmul_precision()`` allows.

    ``highest`` takes three TF32 products, exact to about float32; ``high`` and ``medium`` take one.
    """
    if dtype != torch.float32:
        return "half"
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def input_precision(precision: str) -> str:
    """Name the precision as ``tl.dot`` takes it, which looks at it for float32 alone."""
    return "tf32" if precision == "half" else precision
