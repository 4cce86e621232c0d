"""Residual profiles of genes, whole or compressed without loss by their Gram matrix.

Legend: n cells, N genes, R columns of a compressed profile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from musegnn.coexpression.residuals import pearson_residuals
from musegnn.kernels.gram import accumulate_dense_gram

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from musegnn.coexpression.sctransform import SCTModel

DENSE_CELLS = 2048


class GramProfile:
    """Collect the Gram matrix of centred, clipped residuals over blocks of cells.

    Parameters
    ----------
    model
        sctransform model of the N genes.
    """

    def __init__(self, model: SCTModel) -> None:
        self._model = model
        self._gram = np.zeros((model.n_genes, model.n_genes))
        self._total = np.zeros(model.n_genes)
        self._n_cells = 0

    def update(self, block: csr_matrix, depth: NDArray[np.float64]) -> None:
        """Add a block of counts, shape (b, N), of cells with these depths, shape (b,), 2048 dense rows at a time."""
        for start in range(0, len(depth), DENSE_CELLS):
            part = slice(start, start + DENSE_CELLS)
            rows = pearson_residuals(block[part], depth[part], self._model, clip=self._model.profile_clip)
            accumulate_dense_gram(rows, self._gram)
            self._total += rows.sum(axis=0)
            self._n_cells += len(rows)

    def finish(self) -> NDArray[np.float32]:
        """Give the compressed profile, shape (N, R), float32."""
        mean = self._total / self._n_cells
        return compress(self._gram - self._n_cells * np.outer(mean, mean))


class FullProfile:
    """Collect the centred, clipped residuals themselves: N x n numbers, for small data only.

    Parameters
    ----------
    model
        sctransform model of the N genes.
    n_cells
        Number of cells n.
    """

    def __init__(self, model: SCTModel, n_cells: int) -> None:
        self._model = model
        self._values = np.empty((model.n_genes, n_cells), dtype=np.float32)
        self._n_seen = 0

    def update(self, block: csr_matrix, depth: NDArray[np.float64]) -> None:
        """Add a block of counts, shape (b, N), of cells with these depths, shape (b,)."""
        rows = pearson_residuals(block, depth, self._model, clip=self._model.profile_clip)
        self._values[:, self._n_seen : self._n_seen + len(rows)] = rows.T
        self._n_seen += len(rows)

    def finish(self) -> NDArray[np.float32]:
        """Give the profile, shape (N, n), float32."""
        mean = self._values.mean(axis=1, dtype=np.float64, keepdims=True)
        centred: NDArray[np.float32] = (self._values - mean).astype(np.float32)
        return centred


def compress(gram: NDArray[np.float64]) -> NDArray[np.float32]:
    """Find few columns with the same inner products.

    Parameters
    ----------
    gram
        Inner products of N profiles, symmetric, positive semidefinite up to rounding, shape (N, N).

    Returns
    -------
    numpy.ndarray
        ``U sqrt(lambda)`` with descending eigenvalues, those lost in rounding left out; the entry of largest
        magnitude in each column is positive. Shape (N, R), R <= N, float32. ``result @ result.T`` is `gram`, so
        any linear map of the whole profile is one of the result.

    Raises
    ------
    ValueError
        When `gram` is not square or not finite.

    Examples
    --------
    >>> compress(np.array([[4.0, 0.0], [0.0, 1.0]])).tolist()
    [[2.0, 0.0], [0.0, 1.0]]
    """
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or not np.isfinite(gram).all():
        msg = f"gram must be square and finite, got shape {gram.shape}"
        raise ValueError(msg)
    values, vectors = np.linalg.eigh(0.5 * (gram + gram.T))
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = values > len(gram) * np.finfo(np.float64).eps * max(float(values[0]), 0.0) if len(values) else values > 0.0
    columns = vectors[:, kept] * np.sqrt(values[kept])
    largest = np.abs(columns).argmax(axis=0)
    signs = np.sign(columns[largest, np.arange(columns.shape[1])])
    result: NDArray[np.float32] = (columns * signs).astype(np.float32)
    return result
