"""The same through products of sparse matrices of ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.kernels.validation import Ints


def pack(
    indptr: Ints, indices: NDArray[np.int32], z: NDArray[np.float32], gene: NDArray[np.int32], n_genes: int
) -> sparse.csr_array:
    """Return the sets as rows of ones, one column per gene and sign."""
    rows = np.repeat(np.arange(len(gene)), np.diff(indptr))
    column = gene[indices] + n_genes * (z < 0)
    keep = gene[indices] >= 0
    entries = (np.ones(int(keep.sum()), dtype=np.int64), (rows[keep], column[keep]))
    return sparse.csr_array(entries, shape=(len(gene), 2 * n_genes))


def intersections(
    a: sparse.csr_array, b: sparse.csr_array, rows_a: Ints, rows_b: Ints, n_genes: int
) -> tuple[Ints, Ints, Ints]:
    """Count what row ``rows_a[k]`` of `a` and row ``rows_b[k]`` of `b` share and have, each (A,)."""
    del n_genes
    left, right = a[rows_a], b[rows_b]
    both = np.asarray(left.multiply(right).sum(axis=1), dtype=np.int64).ravel()
    return both, np.diff(left.indptr).astype(np.int64), np.diff(right.indptr).astype(np.int64)
