"""The sums as compiled loops over the nonzeros of CSR rows, without the interpreter lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from musegnn.kernels.validation import Block, Floats


@njit(nogil=True, cache=True)
def moments(block: Block, basis: Floats, m1: Floats, m2: Floats) -> None:
    """Add the moments of one block, cell by cell; an empty `m2` is left out."""
    indptr, indices, data = block
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
