"""Blocks of rows, tiles of columns, and the gathering loops over both.

A tile is a range of nodes whose rows of one table stay in the second-level cache while a block of rows visits them.
Legend: N nodes, ``index`` the columns of CSR or the rows of CSC, ``cuts[t * N + i]`` where tile t begins in row i.
Tables are head-major, and the rows of one head begin at ``table_at``; what a row owns is node-major, from ``own_at`` on
every ``own_step`` elements. D, ``dim``, is a constant of the compilation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit
from numba.misc.special import literally

from musegnn.kernels.edge_attention.impl.compile import inlined
from musegnn.kernels.edge_attention.impl.gather import dot_rows, prefetch, sum_placed_rows, sum_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]
    Ints = NDArray[np.int64]

# A row's part of a tile is too short for hardware to foresee where the next begins, so it is asked for ahead of use.
AHEAD = 2
FEW_LINES, SOME_LINES = 2, 4


@njit(cache=True, nogil=True)
def cut(pointers: Ints, index: Ints, offsets: Ints, tiles: Ints, n_tiles: int) -> Ints:
    """Find where each tile begins in each row; the last tile ends where one more would begin.

    The tiles of graph g have ``tiles[g]`` nodes from ``offsets[g]`` on, so that a row is cut as in the graph alone;
    graphs with fewer than ``n_tiles`` get empty ones.
    """
    n_rows = pointers.size - 1
    cuts = np.zeros((n_tiles + 1) * n_rows + AHEAD, np.int64)
    for g in range(offsets.size - 1):
        for i in range(offsets[g], offsets[g + 1]):
            low, end = pointers[i], pointers[i + 1]
            cuts[i] = low
            for t in range(1, n_tiles):
                bound, high = offsets[g] + t * tiles[g], end
                while low < high:
                    middle = (low + high) // 2
                    if index[middle] < bound:
                        low = middle + 1
                    else:
                        high = middle
                cuts[t * n_rows + i] = low
            cuts[n_tiles * n_rows + i] = end
    return cuts


@inlined
def count_tiles(cuts: Ints, n_nodes: int) -> int:
    """Return the number of tiles."""
    return (cuts.size - AHEAD) // n_nodes - 1


@inlined
def block_end(pointers: Ints, first: int, last: int, block_edges: int) -> int:
    """Return the end of the block that starts at row ``first``: at least one row, else at most so many edges."""
    end = first + 1
    while end < last and pointers[end + 1] - pointers[first] <= block_edges:
        end += 1
    return end


@njit(cache=True, nogil=True)
def largest_block(pointers: Ints, first: int, last: int, block_edges: int) -> int:
    """Return the most rows or edges of any block."""
    largest = 0
    while first < last:
        end = block_end(pointers, first, last, block_edges)
        largest = max(largest, end - first, pointers[end] - pointers[first])
        first = end
    return largest


@inlined
def dot_block(
    out: Floats, base: int, x: Floats, own_at: int, own_step: int, table: Floats, table_at: int, index: Ints,
    cuts: Ints, n_nodes: int, begin: int, end: int, dim: int,
) -> None:  # fmt: skip
    """Set ``out[e - base]``, for all edges of a block, to the product of the row of x and the column of the table."""
    n_tiles = count_tiles(cuts, n_nodes)
    for t in range(n_tiles):
        for i in range(begin, end):
            c = t * n_nodes + i
            start, stop = cuts[c], cuts[c + n_nodes]
            if n_tiles > 1:
                prefetch(index, cuts[c + AHEAD], SOME_LINES)
                prefetch(out, cuts[c + AHEAD] - base, FEW_LINES)
            at = own_at + i * own_step
            dot_rows(out, start - base, x, at, table, table_at, index, start, stop, literally(dim))


@inlined
def sum_block(
    out: Floats, own_at: int, own_step: int, weight: Floats, base: int, table: Floats, table_at: int, index: Ints,
    cuts: Ints, n_nodes: int, begin: int, end: int, dim: int,
) -> None:  # fmt: skip
    """Set each row of a block to the sum of the columns of the table times ``weight[e - base]``."""
    n_tiles = count_tiles(cuts, n_nodes)
    for t in range(n_tiles):
        for i in range(begin, end):
            c, at = t * n_nodes + i, own_at + i * own_step
            if n_tiles > 1:
                prefetch(index, cuts[c + AHEAD], SOME_LINES)
                prefetch(weight, cuts[c + AHEAD] - base, FEW_LINES)
                prefetch(out, at + AHEAD * own_step, FEW_LINES)
            sum_rows(
                out, at, t == 0, weight, -base, table, table_at, index, cuts[c], cuts[c + n_nodes], literally(dim)
            )  # fmt: skip


@inlined
def sum_placed_block(
    out_x: Floats, out_y: Floats, own_at: int, own_step: int, pairs: Floats, pairs_at: int, place: Ints,
    table_x: Floats, table_y: Floats, table_at: int, index: Ints, cuts: Ints, n_nodes: int, begin: int, end: int,
    dim: int,
) -> None:  # fmt: skip
    """Do the same for two tables with the weights ``pairs[pairs_at + 2 * place[e]:][:2]``."""
    n_tiles = count_tiles(cuts, n_nodes)
    for t in range(n_tiles):
        for j in range(begin, end):
            c, at = t * n_nodes + j, own_at + j * own_step
            if n_tiles > 1:
                prefetch(index, cuts[c + AHEAD], SOME_LINES)
                prefetch(place, cuts[c + AHEAD], SOME_LINES)
                prefetch(out_x, at + AHEAD * own_step, FEW_LINES)
                prefetch(out_y, at + AHEAD * own_step, FEW_LINES)
            sum_placed_rows(
                out_x, out_y, at, t == 0, pairs, pairs_at, place, table_x, table_y, table_at, index, cuts[c],
                cuts[c + n_nodes], literally(dim),
            )  # fmt: skip
