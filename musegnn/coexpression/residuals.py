"""Pearson residuals of the sctransform model, dense or as streamed moments.

Legend: B cells of a block, C cells, G genes, N selected genes.

A residual depends on the cell only through its depth. The sum over zero counts is therefore a sum over the histogram
of depths, and only the non-zero counts have to be visited: ``O(nnz + G U)`` for U distinct depths.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from musegnn.kernels.residuals import accumulate_nonzeros, dense_residuals, zero_sums

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from musegnn.coexpression.sctransform import SCTModel


class ResidualMoments:
    """Mean and variance over all cells of each gene's residuals, from blocks of counts.

    Residuals are clipped at the square root of the number of cells. The result depends on the order of blocks only
    through rounding.

    Parameters
    ----------
    model
        The fitted model of G genes.
    depth
        Depth of all cells, shape (C,), with C the model's number of cells.

    Raises
    ------
    ValueError
        When the number of depths is not the model's number of cells.
    """

    def __init__(self, model: SCTModel, depth: NDArray[np.float64]) -> None:
        if len(depth) != model.n_cells:
            msg = f"expected the depths of {model.n_cells} cells, got {len(depth)}"
            raise ValueError(msg)
        self._model = model.noise(model.clip)
        self._n_cells = model.n_cells
        self._n_seen = 0
        levels, cells = np.unique(np.asarray(depth, np.float64), return_counts=True)
        self._sums = zero_sums(levels, cells, self._model)

    def update(self, block: csr_matrix, depth: NDArray[np.float64]) -> None:
        """Take in the counts of some cells; every cell has to come once.

        Parameters
        ----------
        block
            Counts, shape (B, G).
        depth
            Depth of these cells, shape (B,).
        """
        accumulate_nonzeros(block, np.asarray(depth, np.float64), self._model, self._sums)
        self._n_seen += len(depth)

    def finish(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Give the moments.

        Returns
        -------
        mean, variance
            Of the residuals, variance with ddof 1, NaN for genes without a model; shapes (G,), float64.

        Raises
        ------
        ValueError
            When not every cell was taken in.
        """
        if self._n_seen != self._n_cells:
            msg = f"expected the counts of {self._n_cells} cells, got {self._n_seen}"
            raise ValueError(msg)
        n = self._n_cells
        mean = self._sums.first / n
        return mean, (self._sums.second - self._sums.first * mean) / (n - 1)


def pearson_residuals(
    block: csr_matrix, depth: NDArray[np.float64], model: SCTModel, *, clip: float | None = None
) -> NDArray[np.float64]:
    """Compute the residuals of a block of cells.

    Parameters
    ----------
    block
        Counts of the model's genes, shape (B, N).
    depth
        Depth of these cells over all genes, shape (B,).
    model
        The model of these N genes, see :meth:`SCTModel.take`.
    clip
        Bound of the absolute residual; ``None``: the square root of the model's number of cells.
        ``model.profile_clip`` gives the bound of published expression profiles, which are then centred per gene.

    Returns
    -------
    numpy.ndarray
        Residuals, shape (B, N), float64.
    """
    noise = model.noise(model.clip if clip is None else clip)
    return dense_residuals(block, np.asarray(depth, np.float64), noise)


def rank_variable(variance: NDArray[np.float64]) -> NDArray[np.int64]:
    """Order genes by falling residual variance.

    Parameters
    ----------
    variance
        Residual variances, NaN for genes without a model, shape (G,), float64.

    Returns
    -------
    numpy.ndarray
        Positions of the genes that have a model; equal variances in input order, int64.
    """
    order = np.argsort(-variance, kind="stable")
    return order[: int(np.sum(~np.isnan(variance)))]
