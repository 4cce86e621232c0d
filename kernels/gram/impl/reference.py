"""The weighted Gram matrix as two sparse products."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray


def gram(
    block: csr_matrix,
    depth: NDArray[np.float64],
    mu: NDArray[np.float64],
    slopes: NDArray[np.float64],
    start: int,
    stop: int,
    out: NDArray[np.float64],
) -> None:
    """Add rows [start, stop) and columns from `start` on of ``Y.T @ Y`` for each weighting."""
    cells = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
    genes = block.indices
    for w in range(2):
        values = block.data / (mu[genes] + depth[cells] * slopes[genes, w])
        y = csr_matrix((values, block.indices, block.indptr), shape=block.shape)[:, start:]
        product = (y[:, : stop - start].T @ y).tocoo()
        out[product.row, product.col, w] += product.data
