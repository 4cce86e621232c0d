"""The same through a dense matrix of the kept cells' entries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray


def subset(block: csr_matrix, keep: NDArray[np.bool_], place: NDArray[np.int32], n_genes: int) -> csr_matrix:
    """Return the kept cells with some genes in a new order."""
    taken = np.flatnonzero(place >= 0)
    dense = np.zeros((int(keep.sum()), n_genes), dtype=np.int32)
    dense[:, place[taken]] = block[keep].toarray()[:, taken]
    return csr_matrix(dense)
