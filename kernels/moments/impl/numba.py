"""The sums as compiled loops over the nonzeros of CSR rows, without the interpreter lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

TABLE = 256


@njit(nogil=True, cache=True)
def moments(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.int32],
    basis: NDArray[np.float64],
    m1: NDArray[np.float64],
    m2: NDArray[np.float64],
) -> None:
    """Add the moments of one block, cell by cell; an empty `m2` is left out."""
    order = basis.shape[1]
    both = len(m2) > 0
    for i in range(len(indptr) - 1):
        row = basis[i]
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            x = np.float64(data[e])
            first = m1[j]
            for q in range(order):
                first[q] += x * row[q]
            if both and data[e] > 1:
                pairs = x * (x - 1.0)
                second = m2[j]
                for q in range(order):
                    second[q] += pairs * row[q]


@njit(nogil=True, cache=True)
def gene_sums(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.int32],
    keep: NDArray[np.bool_],
    total: NDArray[np.float64],
    squares: NDArray[np.float64],
    log1p: NDArray[np.float64],
    detected: NDArray[np.int64],
) -> None:
    """Add the sums of one block, cell by cell, with a table of logarithms of small counts."""
    table = np.empty(TABLE)
    for small in range(TABLE):
        table[small] = np.log1p(np.float64(small))
    for i in range(len(indptr) - 1):
        if not keep[i]:
            continue
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            count = data[e]
            x = np.float64(count)
            total[j] += x
            squares[j] += x * x
            log1p[j] += table[count] if 0 <= count < TABLE else np.log1p(x)
            detected[j] += 1
