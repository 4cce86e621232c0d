"""The same through a dense matrix of the kept cells' entries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.kernels.validation import Block


def subset(block: Block, keep: NDArray[np.bool_], place: NDArray[np.int32]) -> Block:
    """Return row pointers, indices and data."""
    indptr, indices, data = block
    kept = csr_matrix((data, indices, indptr), shape=(len(keep), len(place)))[keep].toarray()
    taken = np.flatnonzero(place >= 0)
    dense = np.zeros((len(kept), place.max(initial=-1) + 1), dtype=np.int32)
    dense[:, place[taken]] = kept[:, taken]
    result = csr_matrix(dense)
    return result.indptr, result.indices, result.data
