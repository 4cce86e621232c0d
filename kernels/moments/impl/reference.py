"""The sums as scipy writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

if TYPE_CHECKING:
    from musegnn.kernels.validation import Block, Floats


def moments(block: Block, basis: Floats, m1: Floats, m2: Floats) -> None:
    """Add the moments of one block by sparse products; an empty `m2` is left out."""
    indptr, indices, data = block
    x = csr_matrix((data, indices, indptr), shape=(len(basis), len(m1))).astype(np.float64)
    m1 += x.T @ basis
    if len(m2):
        m2 += (x.multiply(x) - x).T @ basis
