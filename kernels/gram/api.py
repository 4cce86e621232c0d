"""Gram matrix of counts under two weightings at once, accumulated block by block.

The derivation is in this folder's README.

Legend: b cells of a block, N genes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from musegnn.kernels.moments.api import Impl, check_array, csr_parts, use_numba

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix


def accumulate_gram(
    block: csr_matrix,
    depth: NDArray[np.float64],
    mu: NDArray[np.float64],
    slopes: NDArray[np.float64],
    out: NDArray[np.float64],
    *,
    impl: Impl = "auto",
) -> None:
    """Add ``sum_i x_ij g_j(s_i) x_ik g_k(s_i)`` with ``g_j(s) = 1 / (mu_j + s slope_j)`` for j <= k, in place.

    Parameters
    ----------
    block
        Counts of the selected genes, CSR with sorted indices, shape (b, N), int32 data.
    depth
        Depths s of the cells, shape (b,), float64.
    mu
        Means relative to depth, shape (N,), float64.
    slopes
        Slope of each gene under the two weightings, shape (N, 2), float64.
    out
        Running sums under the two weightings, shape (N, N, 2), float64, C order. Only entries with j <= k are
        added to; :func:`symmetrize` fills the others.
    impl
        ``auto`` is ``numba``, whose bits do not depend on how cells are cut into blocks.

    Raises
    ------
    TypeError
        When `block` is not CSR, or an array has another dtype or memory order.
    ValueError
        When shapes do not fit, indices are unsorted or out of range, or `impl` is unknown.
    """
    indptr, indices, data = csr_parts(block)
    n_cells, n_genes = block.shape
    check_array("depth", depth, (n_cells,), np.float64)
    check_array("mu", mu, (n_genes,), np.float64)
    check_array("slopes", slopes, (n_genes, 2), np.float64)
    check_array("out", out, (n_genes, n_genes, 2), np.float64)
    if not block.has_sorted_indices:
        msg = "block must have sorted indices"
        raise ValueError(msg)
    if use_numba(impl):
        from musegnn.kernels.gram.impl import numba

        numba.gram(indptr, indices, data, depth, mu, slopes, out)
        return
    from musegnn.kernels.gram.impl import reference

    reference.gram(block, depth, mu, slopes, out)


def accumulate_dense_gram(rows: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    """Add ``rows.T @ rows`` in place.

    Parameters
    ----------
    rows
        Dense values of one block, shape (b, N), float64, C order.
    out
        Running sums, shape (N, N), float64, C order.

    Raises
    ------
    TypeError
        When an array has another dtype or memory order.
    ValueError
        When shapes do not fit.
    """
    n_genes = out.shape[0]
    check_array("rows", rows, (len(rows), n_genes), np.float64)
    check_array("out", out, (n_genes, n_genes), np.float64)
    out += rows.T @ rows


def symmetrize(out: NDArray[np.float64], *, rows: int = 256) -> None:
    """Copy the entries with j < k of an (N, N, ...) array to k, j, in place.

    Parameters
    ----------
    out
        Array whose upper triangle is filled.
    rows
        Rows copied at a time.
    """
    n_genes = len(out)
    for start in range(0, n_genes, rows):
        stop = min(start + rows, n_genes)
        out[stop:, start:stop] = np.swapaxes(out[start:stop, stop:], 0, 1)
        for j in range(start, stop):
            out[j + 1 : stop, j] = out[j, j + 1 : stop]
