"""Mean and variance of the residuals of each gene, from one pass over the counts.

Legend: B cells of a block, C cells, G genes.

A residual depends on the cell only through its depth. The sum over zero counts is therefore a sum over the histogram
of depths, and only the non-zero counts have to be visited: ``O(nnz + G U)`` for U distinct depths.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from musegnn.kernels.residuals import ResidualSums, accumulate_nonzeros, zero_sums

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from musegnn.kernels.residuals import NoiseModel


class VarianceSums(NamedTuple):
    """Sums of :class:`ResidualMoments` over `n_seen` cells, shapes (G,), float64."""

    first: NDArray[np.float64]
    second: NDArray[np.float64]
    n_seen: int


class ResidualMoments:
    """Mean and variance over all cells of the residuals of G genes, from blocks of counts.

    The result depends on the order of blocks only through rounding.
    """

    def __init__(self, model: NoiseModel) -> None:
        self._model = model
        self._n_seen = 0
        self._sums = ResidualSums(np.zeros(len(model.rate)), np.zeros(len(model.rate)))

    def update(self, block: csr_matrix, depth: NDArray[np.float64]) -> None:
        """Add counts, shape (B, G), of cells with these depths, shape (B,); every cell has to come once."""
        accumulate_nonzeros(block, np.asarray(depth, np.float64), self._model, self._sums)
        self._n_seen += len(depth)

    def parts(self) -> VarianceSums:
        """Return what some cells added."""
        return VarianceSums(*self._sums, self._n_seen)

    def merge(self, parts: VarianceSums) -> None:
        """Add what other cells added."""
        self._sums.first[:] += parts.first
        self._sums.second[:] += parts.second
        self._n_seen += parts.n_seen

    def finish(self, depth: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Compute mean and variance (ddof 1; NaN for genes without a model) given the depths of all C cells.

        Raises
        ------
        ValueError
            When counts of another number of cells were added.
        """
        n = len(depth)
        if self._n_seen != n:
            msg = f"expected the depths of the {self._n_seen} cells whose counts were added, got {n}"
            raise ValueError(msg)
        levels, cells = np.unique(np.asarray(depth, np.float64), return_counts=True)
        zeros = zero_sums(levels, cells, self._model)
        first, second = zeros.first + self._sums.first, zeros.second + self._sums.second
        mean = first / n
        return mean, (second - first * mean) / (n - 1)


def rank_variable(variance: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the positions of genes that have a model (variance not NaN) by falling variance, ties in input order."""
    order = np.argsort(-variance, kind="stable")
    return order[: int(np.sum(~np.isnan(variance)))]
