"""Take some cells and genes of a block of counts in one pass over its entries.

Legend: b cells of a block, k cells taken, G genes, N genes taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

from musegnn.kernels.moments.api import Impl, check_array, csr_parts, use_numba

if TYPE_CHECKING:
    from numpy.typing import NDArray


def subset(
    block: csr_matrix, keep: NDArray[np.bool_], place: NDArray[np.int32], n_genes: int, *, impl: Impl = "auto"
) -> csr_matrix:
    """Return the kept cells with some genes in a new order.

    Parameters
    ----------
    block
        Counts, CSR, shape (b, G), int32 data.
    keep
        Cells to take, shape (b,).
    place
        New column of each gene, -1 for genes left out, shape (G,), int32.
    n_genes
        Number of new columns N.
    impl
        ``auto`` is ``numba``.

    Returns
    -------
    scipy.sparse.csr_matrix
        Shape (k, N), int32; the entries of a row stay in the order of the block, so its indices ascend only where
        `place` does.

    Raises
    ------
    TypeError
        When `block` is not CSR, or an array has another dtype or memory order.
    ValueError
        When shapes do not fit, or a place is outside [-1, N).

    Examples
    --------
    >>> block = csr_matrix(np.array([[1, 2, 3], [4, 5, 6]], dtype=np.int32))
    >>> subset(block, np.array([False, True]), np.array([1, -1, 0], dtype=np.int32), 2).toarray().tolist()
    [[6, 4]]
    """
    indptr, indices, data = csr_parts(block)
    check_array("keep", keep, (block.shape[0],), np.bool_)
    check_array("place", place, (block.shape[1],), np.int32)
    if len(place) and not (place.min() >= -1 and place.max() < n_genes):
        msg = f"place must be in [-1, {n_genes}), got {place.min()} to {place.max()}"
        raise ValueError(msg)
    if use_numba(impl):
        from musegnn.kernels.subset.impl import numba

        rows, columns, values = numba.subset(indptr, indices, data, keep, place)
        return csr_matrix((values, columns, rows), shape=(len(rows) - 1, n_genes))
    from musegnn.kernels.subset.impl import reference

    return reference.subset(block, keep, place, n_genes)
