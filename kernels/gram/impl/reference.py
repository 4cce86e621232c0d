"""The weighted Gram matrix as two sparse products."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

if TYPE_CHECKING:
    from musegnn.kernels.validation import Block, Floats


def gram(block: Block, depth: Floats, mu: Floats, slopes: Floats, stripe: tuple[int, int, int], out: Floats) -> None:
    """Add rows [start, stop) and columns from `start` on of ``Y.T @ Y`` for each weighting."""
    indptr, genes, counts = block
    start, stop, _ = stripe
    s = np.repeat(depth, np.diff(indptr))
    for w in range(2):
        values = counts / (mu[genes] + s * slopes[genes, w])
        y = csr_matrix((values, genes, indptr), shape=(len(depth), len(mu)))[:, start:]
        product = (y[:, : stop - start].T @ y).tocoo()
        out[product.row, product.col, w] += product.data
