"""The same through products of sparse matrices of ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.kernels.overlap.api import NeighbourSets

    Ints = NDArray[np.int64]


def intersections(a: NeighbourSets, b: NeighbourSets, rows_a: Ints, rows_b: Ints) -> tuple[Ints, Ints, Ints]:
    """Count what row ``rows_a[k]`` of `a` and row ``rows_b[k]`` of `b` share and have, each (A,)."""
    left, right = _ones(a)[rows_a], _ones(b)[rows_b]
    both = np.asarray(left.multiply(right).sum(axis=1), dtype=np.int64).ravel()
    return both, np.diff(left.indptr).astype(np.int64), np.diff(right.indptr).astype(np.int64)


def _ones(sets: NeighbourSets) -> sparse.csr_array:
    """Return the sets as rows of ones, one column per gene and sign."""
    rows = np.repeat(np.arange(len(sets)), np.diff(sets.indptr))
    column = sets.gene[sets.indices] + sets.n_genes * (sets.z < 0)
    keep = sets.gene[sets.indices] >= 0
    entries = (np.ones(int(keep.sum()), dtype=np.int64), (rows[keep], column[keep]))
    return sparse.csr_array(entries, shape=(len(sets), 2 * sets.n_genes))
