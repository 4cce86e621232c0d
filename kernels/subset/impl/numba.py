"""Count, then copy: two compiled passes over the entries, without the interpreter lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.kernels.validation import Block


@njit(nogil=True, cache=True)
def subset(block: Block, keep: NDArray[np.bool_], place: NDArray[np.int32]) -> Block:
    """Return row pointers, indices and data."""
    indptr, indices, data = block
    rows = np.zeros(keep.sum() + 1, dtype=np.int64)
    k = 0
    for i in range(len(keep)):
        if keep[i]:
            count = 0
            for e in range(indptr[i], indptr[i + 1]):
                count += place[indices[e]] >= 0
            rows[k + 1] = rows[k] + count
            k += 1
    columns, values = np.empty(rows[-1], dtype=np.int32), np.empty(rows[-1], dtype=np.int32)
    t = 0
    for i in range(len(keep)):
        if keep[i]:
            for e in range(indptr[i], indptr[i + 1]):
                column = place[indices[e]]
                if column >= 0:
                    columns[t], values[t] = column, data[e]
                    t += 1
    return rows, columns, values
