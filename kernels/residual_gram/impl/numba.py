"""The sparse-times-dense product as compiled loops without the interpreter lock.

Legend: N genes, W columns padded to whole tiles, E entries of a part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from musegnn.kernels.gram.impl.simd import LANES, VECTORS, add_tile
from musegnn.kernels.residuals.impl.numba import residual

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.kernels.residuals import NoiseModel
    from musegnn.kernels.validation import Block, Floats, Ints

    ByGene = tuple[Ints, NDArray[np.uint32], Floats]

CELLS = 512
TILE = VECTORS * LANES


@njit(nogil=True, cache=True, error_model="numpy")
def add(block: Block, depth: Floats, model: NoiseModel, cross: Floats, total: Floats) -> None:
    """Add S to `cross` (N, W) and the sums of D to `total` (N,)."""
    indptr, indices, data = block
    tile = np.empty(CELLS * TILE)
    for first in range(0, len(depth), CELLS):
        last = min(first + CELLS, len(depth))
        part = (indptr[first : last + 1], indices, data)
        changes = _changes(part, depth[first:last], model, total)
        _multiply(changes, depth[first:last], model, tile, cross)


@njit(nogil=True, cache=True, error_model="numpy")
def _changes(block: Block, depth: Floats, model: NoiseModel, total: Floats) -> ByGene:
    """List D of one part by gene: offsets (N + 1,), cells (E,), and D twice, (2E,)."""
    indptr, indices, data = block
    rate, theta, min_variance, clip = model
    n_genes = len(rate)
    count = indptr[-1] - indptr[0]
    cell, change = np.empty(count, dtype=np.uint32), np.empty(2 * count)
    begin = np.zeros(n_genes + 1, dtype=np.int64)
    for e in range(indptr[0], indptr[-1]):
        begin[indices[e] + 1] += 1
    for j in range(n_genes):
        begin[j + 1] += begin[j]
    fill = begin[:n_genes].copy()
    for i in range(len(depth)):
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            mu = rate[j] * depth[i]
            d = residual(np.float64(data[e]), mu, theta[j], min_variance, clip)
            d -= residual(0.0, mu, theta[j], min_variance, clip)
            p = fill[j]
            fill[j] += 1
            cell[p] = i
            change[2 * p], change[2 * p + 1] = d, d
            total[j] += d
    return begin, cell, change


@njit(nogil=True, cache=True, error_model="numpy")
def _multiply(changes: ByGene, depth: Floats, model: NoiseModel, tile: Floats, cross: Floats) -> None:
    """Add the product of D with F, which is made dense 64 genes at a time."""
    begin, cell, change = changes
    rate, theta, min_variance, clip = model
    n_genes, width = len(rate), cross.shape[1]
    flat = cross.reshape(-1)
    for left in range(0, n_genes, TILE):
        size = min(TILE, n_genes - left)
        for i in range(len(depth)):
            for k in range(size):
                mu = rate[left + k] * depth[i]
                tile[i * TILE + k] = residual(0.0, mu, theta[left + k], min_variance, clip)
            tile[i * TILE + size : (i + 1) * TILE] = 0.0
        for k in range(size):
            for p in range(begin[left + k], begin[left + k + 1]):
                tile[cell[p] * TILE + k] += 0.5 * change[2 * p]
        for j in range(n_genes):
            add_tile(flat, width * j + left, tile, cell, change, begin[j], begin[j + 1])
