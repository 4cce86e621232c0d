"""The sums as scipy writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix


def moments(
    block: csr_matrix, basis: NDArray[np.float64], m1: NDArray[np.float64], m2: NDArray[np.float64] | None
) -> None:
    """Add the moments of one block by sparse products."""
    x = block.astype(np.float64)
    m1 += x.T @ basis
    if m2 is not None:
        m2 += (x.multiply(x) - x).T @ basis


def gene_sums(
    block: csr_matrix,
    keep: NDArray[np.bool_],
    total: NDArray[np.float64],
    squares: NDArray[np.float64],
    log1p: NDArray[np.float64],
    detected: NDArray[np.int64],
) -> None:
    """Add the sums of one block by bin counts."""
    kept = block[keep]
    n_genes = len(total)
    x = kept.data.astype(np.float64)
    total += np.bincount(kept.indices, weights=x, minlength=n_genes)
    squares += np.bincount(kept.indices, weights=x * x, minlength=n_genes)
    log1p += np.bincount(kept.indices, weights=np.log1p(x), minlength=n_genes)
    detected += np.bincount(kept.indices, minlength=n_genes)
