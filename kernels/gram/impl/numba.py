"""The weighted Gram matrix as a compiled loop over pairs of nonzeros, without the interpreter lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from musegnn.kernels.gram.impl.simd import add_pair

if TYPE_CHECKING:
    from numpy.typing import NDArray

CELLS = 2048


@njit(nogil=True, cache=True)
def gram(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.int32],
    depth: NDArray[np.float64],
    mu: NDArray[np.float64],
    slopes: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Add the upper triangle under both weightings; every sum runs over the cells in their order."""
    n_cells = len(indptr) - 1
    for start in range(0, n_cells, CELLS):
        _cells(start, min(start + CELLS, n_cells), indptr, indices, data, depth, mu, slopes, out)


@njit(nogil=True, cache=True)
def _cells(
    start: int,
    stop: int,
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.int32],
    depth: NDArray[np.float64],
    mu: NDArray[np.float64],
    slopes: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    n_genes = len(mu)
    base = indptr[start]
    count = indptr[stop] - base
    y = np.empty(2 * count)
    column = np.empty(count, dtype=np.uint32)
    first = np.zeros(n_genes + 1, dtype=np.int64)
    for i in range(start, stop):
        s = depth[i]
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            t = e - base
            x = np.float64(data[e])
            column[t] = j
            y[2 * t] = x / (mu[j] + s * slopes[j, 0])
            y[2 * t + 1] = x / (mu[j] + s * slopes[j, 1])
            first[j + 1] += 1
    for j in range(n_genes):
        first[j + 1] += first[j]
    begin = np.empty(count, dtype=np.int64)
    end = np.empty(count, dtype=np.int64)
    fill = first[:n_genes].copy()
    for i in range(start, stop):
        last = indptr[i + 1] - base
        for t in range(indptr[i] - base, last):
            j = column[t]
            begin[fill[j]] = t
            end[fill[j]] = last
            fill[j] += 1
    flat = out.reshape(-1)
    for j in range(n_genes):
        row = flat[2 * n_genes * j : 2 * n_genes * (j + 1)]
        for c in range(first[j], first[j + 1]):
            a = y[2 * begin[c]]
            b = y[2 * begin[c] + 1]
            for t in range(begin[c], end[c]):
                add_pair(row, column, y, t, a, b)
