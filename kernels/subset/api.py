"""Take some cells and genes of a block of counts in one pass over its entries.

Legend: b cells of a block, k cells taken, G genes, N genes taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

from musegnn.kernels.validation import Impl, check_array, check_range, csr_parts, load_impl

if TYPE_CHECKING:
    from numpy.typing import NDArray


def subset(
    block: csr_matrix, keep: NDArray[np.bool_], place: NDArray[np.int32], n_genes: int, *, impl: Impl = "auto"
) -> csr_matrix:
    """Return the kept cells with some genes in a new order: CSR (k, N), int32.

    The entries of a row stay in the order of the block, so its indices ascend only where `place` does.

    Parameters
    ----------
    block
        Counts, CSR, shape (b, G), int32 data.
    keep
        Mask of the cells to take, shape (b,).
    place
        New column of each gene, below `n_genes`, -1 for genes left out, shape (G,), int32.

    Examples
    --------
    >>> block = csr_matrix(np.array([[1, 2, 3], [4, 5, 6]], dtype=np.int32))
    >>> subset(block, np.array([False, True]), np.array([1, -1, 0], dtype=np.int32), 2).toarray().tolist()
    [[6, 4]]
    """
    parts = csr_parts(block)
    check_array("keep", keep, (block.shape[0],), np.bool_)
    check_array("place", place, (block.shape[1],), np.int32)
    check_range("place", place, -1, n_genes)
    indptr, indices, data = load_impl("subset", impl).subset(parts, keep, place)
    return csr_matrix((data, indices, indptr), shape=(len(indptr) - 1, n_genes))
