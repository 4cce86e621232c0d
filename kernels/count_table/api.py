"""Count how often each count of each gene occurs, block by block.

Legend: b cells of a block, G genes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from musegnn.kernels.validation import Impl, check_array, csr_parts, load_impl

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

SMALL = 64


def accumulate_counts(
    block: csr_matrix, keep: NDArray[np.bool_], small: NDArray[np.int64], *, impl: Impl = "auto"
) -> NDArray[np.int64]:
    """Add the occurrences of counts below 64 in place, and return the larger ones as ``gene * 2**32 + count``, int64.

    Parameters
    ----------
    block
        Counts, CSR without explicit zeros, shape (b, G), int32 data.
    keep
        Mask of the cells that count, shape (b,).
    small
        Occurrences of the counts 0 to 63 of each gene, shape (G, 64), int64; column 0 stays as it is.
    """
    parts = csr_parts(block)
    check_array("keep", keep, (block.shape[0],), np.bool_)
    check_array("small", small, (block.shape[1], SMALL), np.int64)
    if len(block.data) and block.data.min() < 0:
        msg = f"counts must not be negative, got {block.data.min()}"
        raise ValueError(msg)
    large: NDArray[np.int64] = load_impl("count_table", impl).counts(parts, keep, small)
    return large
