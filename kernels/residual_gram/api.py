"""Gram matrix of residuals, accumulated block by block; the derivation is in this folder's README.

Legend: b cells of a block, n cells, N genes, U distinct depths.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from musegnn.kernels.residuals import zero_residuals, zero_sums
from musegnn.kernels.validation import Impl, check_array, csr_parts, load_impl

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from musegnn.kernels.residuals import NoiseModel
    from musegnn.kernels.validation import Floats

TILE = 64
LEVELS = 1024


class ResidualGram:
    """Sums of the products of the residuals of all pairs of genes, all of which must have a model.

    The bits of ``numba`` do not depend on how cells are cut into blocks.
    """

    def __init__(self, model: NoiseModel, *, impl: Impl = "auto") -> None:
        if not (np.isfinite(model.rate).all() and not np.isnan(model.theta).any()):
            msg = "expected genes with a model, got NaN among rates or sizes"
            raise ValueError(msg)
        n_genes = len(model.rate)
        self._model = model
        self._add = load_impl("residual_gram", impl).add
        self.cross = np.zeros((n_genes, -(-n_genes // TILE) * TILE))
        self.total = np.zeros(n_genes)

    def add(self, block: csr_matrix, depth: Floats) -> None:
        """Add a block of cells: counts (b, N), CSR without duplicates, int32 data, and depths (b,), float64."""
        parts = csr_parts(block)
        check_array("depth", depth, (block.shape[0],), np.float64)
        if block.shape[1] != len(self.total):
            msg = f"block must have {len(self.total)} genes, got {block.shape[1]}"
            raise ValueError(msg)
        self._add(parts, depth, self._model, self.cross, self.total)

    def values(self, depth: Floats) -> tuple[Floats, Floats]:
        """Return the sums of products, symmetric, (N, N), and of residuals, (N,), over all cells added, float64.

        `depth` holds the depths of these cells in any order, shape (n,), float64.
        """
        levels, cells = np.unique(np.asarray(depth, np.float64), return_counts=True)
        part = self.cross[:, : len(self.total)]
        products = part + part.T
        for start in range(0, len(levels), LEVELS):
            zeros = zero_residuals(levels[start : start + LEVELS], self._model)
            products += (zeros * cells[start : start + LEVELS, None]).T @ zeros
        products = 0.5 * (products + products.T)
        return products, self.total + zero_sums(levels, cells, self._model).first
