"""The weighted Gram matrix as compiled loops without the interpreter lock; the README tells how.

Legend: N genes in ascending density, R rows of the stripe, W padded columns from its first row on, P parts of at most
128 cells in a batch, E entries of a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from musegnn.kernels.gram.impl.simd import LANES, TILE_GENES, VECTORS, add_pair, add_tile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.kernels.validation import Block, Floats, Ints

    Batch = tuple[Ints, NDArray[np.uint32], Floats]
    Stripe = tuple[int, int, int]

CELLS = 128
PARTS = 64
SCATTER_PARTS = 16
ENTRIES = 1 << 22
TILE_ROWS = 512
ROW = VECTORS * LANES


@njit(nogil=True, cache=True)
def gram(block: Block, depth: Floats, mu: Floats, slopes: Floats, stripe: Stripe, out: Floats) -> None:
    """Add rows [start, stop) and columns from `start` on to `out` (R, W, 2); every sum runs over cells in order.

    The stripe is `start`, `stop` and the number of genes whose pairs are added one by one.
    """
    indptr = block[0]
    n_cells = len(indptr) - 1
    first = 0
    while first < n_cells:
        last = min(first + CELLS, n_cells)
        while last < n_cells and last - first < CELLS * PARTS and indptr[last] - indptr[first] < ENTRIES:
            last = min(last + CELLS, n_cells)
        begin, cell, y = _by_gene(first, last, block, depth, mu, slopes, stripe[0])
        for part in range(0, len(begin), SCATTER_PARTS):
            _scatter((begin[part : part + SCATTER_PARTS], cell, y), stripe, out)
        _tiles((begin, cell, y), stripe, out)
        first = last


@njit(nogil=True, cache=True)
def _by_gene(first: int, last: int, block: Block, depth: Floats, mu: Floats, slopes: Floats, start: int) -> Batch:
    """List the entries of a batch by part and gene: offsets (P, N + 1), cell within the part (E,), weighted (2E,)."""
    indptr, indices, data = block
    n_genes = len(mu)
    count = indptr[last] - indptr[first]
    parts = (last - first + CELLS - 1) // CELLS
    begin = np.zeros((parts, n_genes + 1), dtype=np.int64)
    cell, y = np.empty(count, dtype=np.uint32), np.empty(2 * count)
    fill = np.empty(n_genes, dtype=np.int64)
    for part in range(parts):
        opening, closing = first + part * CELLS, min(first + (part + 1) * CELLS, last)
        offsets = begin[part]
        offsets[0] = indptr[opening] - indptr[first]
        for e in range(indptr[opening], indptr[closing]):
            offsets[indices[e] + 1] += 1
        for j in range(n_genes):
            offsets[j + 1] += offsets[j]
            fill[j] = offsets[j]
        for i in range(opening, closing):
            s = depth[i]
            for e in range(indptr[i], indptr[i + 1]):
                j = indices[e]
                if j >= start:
                    x = np.float64(data[e])
                    p = fill[j]
                    fill[j] += 1
                    cell[p] = i - opening
                    y[2 * p] = x / (mu[j] + s * slopes[j, 0])
                    y[2 * p + 1] = x / (mu[j] + s * slopes[j, 1])
    return begin, cell, y


@njit(nogil=True, cache=True)
def _scatter(batch: Batch, stripe: Stripe, out: Floats) -> None:
    """Add the pairs of genes below `scattered` one by one: each with the later genes of the same cell."""
    begin, cell, y = batch
    start, stop, scattered = stripe
    end = min(stop, scattered)
    if end <= start:
        return
    parts = len(begin)
    place = np.zeros(parts * CELLS + 1, dtype=np.int64)
    for part in range(parts):
        for p in range(begin[part, start], begin[part, scattered]):
            place[part * CELLS + cell[p] + 1] += 1
    for i in range(parts * CELLS):
        place[i + 1] += place[i]
    # By cell, in the order of genes: gene and weighted counts.
    fill = place[: parts * CELLS].copy()
    gene, by_cell = np.empty(place[-1], dtype=np.uint32), np.empty(2 * place[-1])
    for j in range(start, scattered):
        for part in range(parts):
            for p in range(begin[part, j], begin[part, j + 1]):
                i = part * CELLS + cell[p]
                t = fill[i]
                fill[i] += 1
                gene[t] = j - start
                by_cell[2 * t], by_cell[2 * t + 1] = y[2 * p], y[2 * p + 1]
    fill[:] = place[: parts * CELLS]
    width = out.shape[1]
    flat = out.reshape(-1)
    for j in range(start, end):
        row = flat[2 * width * (j - start) : 2 * width * (j - start + 1)]
        for part in range(parts):
            for p in range(begin[part, j], begin[part, j + 1]):
                i = part * CELLS + cell[p]
                here = fill[i]
                fill[i] += 1
                for t in range(here, place[i + 1]):
                    add_pair(row, gene, by_cell, t, y[2 * p], y[2 * p + 1])


@njit(nogil=True, cache=True)
def _tiles(batch: Batch, stripe: Stripe, out: Floats) -> None:
    """Add all rows against the genes from `scattered` on, which are made dense 32 genes x 128 cells at a time."""
    begin, cell, y = batch
    start, stop, scattered = stripe
    parts, n_genes = len(begin), begin.shape[1] - 1
    width = out.shape[1]
    flat = out.reshape(-1)
    # Vectors of the tile that begin within a cache line would each take two.
    room = np.zeros(CELLS * ROW + LANES)
    shift = (-(room.ctypes.data // 8)) % LANES
    tile = room[shift : shift + CELLS * ROW]
    for left in range(max(start, scattered), n_genes, TILE_GENES):
        right = min(left + TILE_GENES, n_genes)
        for top in range(start, min(stop, right), TILE_ROWS):
            bottom = min(top + TILE_ROWS, stop, right)
            for part in range(parts):
                for k in range(left, right):
                    for p in range(begin[part, k], begin[part, k + 1]):
                        place = cell[p] * ROW + 2 * (k - left)
                        tile[place], tile[place + 1] = y[2 * p], y[2 * p + 1]
                for j in range(top, bottom):
                    target = 2 * (width * (j - start) + left - start)
                    add_tile(flat, target, tile, cell, y, begin[part, j], begin[part, j + 1])
                for k in range(left, right):
                    for p in range(begin[part, k], begin[part, k + 1]):
                        place = cell[p] * ROW + 2 * (k - left)
                        tile[place], tile[place + 1] = 0.0, 0.0
