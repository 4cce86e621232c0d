"""The weighted Gram matrix as a compiled loop over pairs of nonzeros, without the interpreter lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

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
    y = np.empty((count, 2))
    column = np.empty(count, dtype=np.uint32)  # unsigned: no test for negative indices in the inner loop
    first = np.zeros(n_genes + 1, dtype=np.int64)
    for i in range(start, stop):
        s = depth[i]
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            column[e - base] = j
            x = np.float64(data[e])
            y[e - base, 0] = x / (mu[j] + s * slopes[j, 0])
            y[e - base, 1] = x / (mu[j] + s * slopes[j, 1])
            first[j + 1] += 1
    for j in range(n_genes):
        first[j + 1] += first[j]
    begin = np.empty(count, dtype=np.int64)
    end = np.empty(count, dtype=np.int64)
    fill = first[:n_genes].copy()
    for i in range(start, stop):
        last = indptr[i + 1] - base
        for e in range(indptr[i] - base, last):
            j = column[e]
            begin[fill[j]] = e
            end[fill[j]] = last
            fill[j] += 1
    for j in range(n_genes):
        row = out[j]
        for c in range(first[j], first[j + 1]):
            e = begin[c]
            a = y[e, 0]
            b = y[e, 1]
            for t in range(e, end[c]):
                k = column[t]
                row[k, 0] += a * y[t, 0]
                row[k, 1] += b * y[t, 1]
