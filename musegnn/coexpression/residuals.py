"""Pearson residuals of the sctransform model, dense or as streamed moments.

Legend: B cells of a block, C cells, G genes, N selected genes.

A residual depends on the cell only through its depth. The sum over zero counts is therefore a sum over the histogram
of depths, and only the non-zero counts have to be visited: ``O(nnz + G U)`` for U distinct depths.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from musegnn.kernels.residuals import ResidualSums, accumulate_nonzeros, dense_residuals, zero_sums

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from musegnn.coexpression.sctransform import SCTModel
    from musegnn.coexpression.tasks import Arrays


class ResidualMoments:
    """Mean and variance over all cells of each gene's residuals, from blocks of counts.

    Residuals are clipped at the square root of the number of cells. The result depends on the order of blocks only
    through rounding.

    Parameters
    ----------
    model
        The fitted model of G genes.
    """

    def __init__(self, model: SCTModel) -> None:
        self._model = model.noise(model.clip)
        self._n_cells = model.n_cells
        self._n_seen = 0
        self._sums = ResidualSums(np.zeros(model.n_genes), np.zeros(model.n_genes))

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

    def to_arrays(self) -> Arrays:
        """Return what some cells added, as plain arrays."""
        return {"first": self._sums.first, "second": self._sums.second, "cells": np.array(self._n_seen)}

    def merge(self, arrays: Arrays) -> None:
        """Add what other cells added, from :meth:`to_arrays`."""
        self._sums.first[:] += arrays["first"]
        self._sums.second[:] += arrays["second"]
        self._n_seen += int(arrays["cells"])

    def finish(self, depth: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the moments.

        Parameters
        ----------
        depth
            Depth of all cells, shape (C,), with C the model's number of cells.

        Returns
        -------
        mean, variance
            Of the residuals, variance with ddof 1, NaN for genes without a model; shapes (G,), float64.

        Raises
        ------
        ValueError
            When not every cell was taken in, or the number of depths is another.
        """
        n = self._n_cells
        if self._n_seen != n or len(depth) != n:
            msg = f"expected counts and depths of {n} cells, got {self._n_seen} and {len(depth)}"
            raise ValueError(msg)
        levels, cells = np.unique(np.asarray(depth, np.float64), return_counts=True)
        zeros = zero_sums(levels, cells, self._model)
        first, second = zeros.first + self._sums.first, zeros.second + self._sums.second
        mean = first / n
        return mean, (second - first * mean) / (n - 1)


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
