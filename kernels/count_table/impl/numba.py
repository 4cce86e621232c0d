"""One compiled loop over the entries, without the interpreter lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.kernels.validation import Block, Ints


@njit(nogil=True, cache=True)
def counts(block: Block, keep: NDArray[np.bool_], small: Ints) -> Ints:
    """Count small ones, collect keys of the others."""
    indptr, indices, data = block
    limit = small.shape[1]
    n_large = 0
    for i in range(len(keep)):
        if keep[i]:
            for e in range(indptr[i], indptr[i + 1]):
                n_large += data[e] >= limit
    large = np.empty(n_large, dtype=np.int64)
    t = 0
    for i in range(len(keep)):
        if keep[i]:
            for e in range(indptr[i], indptr[i + 1]):
                count = data[e]
                if count < limit:
                    small[indices[e], count] += 1
                else:
                    large[t] = (np.int64(indices[e]) << 32) + count
                    t += 1
    return large
