"""The weighted Gram matrix as two sparse products."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix, triu

if TYPE_CHECKING:
    from numpy.typing import NDArray


def gram(
    block: csr_matrix,
    depth: NDArray[np.float64],
    mu: NDArray[np.float64],
    slopes: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Add the upper triangle of ``Y.T @ Y`` for each weighting."""
    cells = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
    genes = block.indices
    for w in range(2):
        values = block.data / (mu[genes] + depth[cells] * slopes[genes, w])
        y = csr_matrix((values, block.indices, block.indptr), shape=block.shape)
        product = triu(y.T @ y).tocoo()
        out[product.row, product.col, w] += product.data
