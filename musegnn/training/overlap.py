"""What two datasets have in common: shared genes, their neighbourhood overlaps, and the genes of one only.

Legend: A shared genes, N genes of a dataset, W tokens (gene key, sign) of the whole atlas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from musegnn.training.data import GraphData


@dataclass(frozen=True, slots=True, kw_only=True)
class PairOverlap:
    """What training compares between datasets i and j.

    Attributes
    ----------
    rows_i, rows_j
        Rows of the shared trainable genes, ordered by gene key, shape (A,), int64.
    weight
        Overlap of their neighbourhoods, in [0, 1], shape (A,), float64.
    pool_i, pool_j
        Rows of the trainable genes that the other dataset lacks and that have a positive trainable neighbour,
        ascending, int64.
    """

    rows_i: NDArray[np.int64]
    rows_j: NDArray[np.int64]
    weight: NDArray[np.float64]
    pool_i: NDArray[np.int64]
    pool_j: NDArray[np.int64]


class Overlaps:
    """Overlaps of all pairs of datasets, each computed at its first use and kept.

    Parameters
    ----------
    graphs
        The graphs as training sees them.
    """

    def __init__(self, graphs: Sequence[GraphData]) -> None:
        self._graphs = graphs
        keys = sorted({key for graph in graphs for key in graph.keys[graph.trainable].tolist()})
        self._token = {key: 2 * k for k, key in enumerate(keys)}
        self._neighbours: dict[int, sparse.csr_array] = {}
        self._pairs: dict[tuple[int, int], PairOverlap] = {}

    def pair(self, i: int, j: int) -> PairOverlap:
        """Give what datasets `i` and `j` have in common."""
        if (i, j) not in self._pairs:
            found = self._compute(min(i, j), max(i, j))
            self._pairs[min(i, j), max(i, j)] = found
            self._pairs[max(i, j), min(i, j)] = PairOverlap(
                rows_i=found.rows_j,
                rows_j=found.rows_i,
                weight=found.weight,
                pool_i=found.pool_j,
                pool_j=found.pool_i,
            )
        return self._pairs[i, j]

    def _compute(self, i: int, j: int) -> PairOverlap:
        a, b = self._graphs[i], self._graphs[j]
        can_a, can_b = np.flatnonzero(a.trainable), np.flatnonzero(b.trainable)
        _, at_a, at_b = np.intersect1d(a.keys[can_a], b.keys[can_b], assume_unique=True, return_indices=True)
        rows_a, rows_b = can_a[at_a], can_b[at_b]
        return PairOverlap(
            rows_i=rows_a,
            rows_j=rows_b,
            weight=jaccard(self._sets(i)[rows_a], self._sets(j)[rows_b]),
            pool_i=np.setdiff1d(np.flatnonzero(a.trainable & a.has_positive), rows_a),
            pool_j=np.setdiff1d(np.flatnonzero(b.trainable & b.has_positive), rows_b),
        )

    def _sets(self, i: int) -> sparse.csr_array:
        """Give the neighbourhoods of dataset `i` as rows of tokens, shape (N, W)."""
        if i not in self._neighbours:
            graph = self._graphs[i]
            # A held-out gene is no token: its identity must not tie two datasets together.
            column = np.array([self._token.get(key, -1) for key in graph.keys.tolist()], dtype=np.int64)
            token = column[graph.edges.indices] + (graph.edges.z < 0)
            keep = graph.trainable[graph.edges.indices]
            shape = (graph.n_genes, 2 * len(self._token))
            ones = np.ones(int(keep.sum()))
            self._neighbours[i] = sparse.csr_array((ones, (graph.edges.rows[keep], token[keep])), shape=shape)
        return self._neighbours[i]


def jaccard(a: sparse.csr_array, b: sparse.csr_array) -> NDArray[np.float64]:
    """Compute the overlap of two lists of sets, set by set.

    Parameters
    ----------
    a, b
        Sets as rows of ones, shape (A, W).

    Returns
    -------
    numpy.ndarray
        Size of the intersection over size of the union, 0 where both sets are empty, shape (A,), float64.
    """
    if a.shape[0] == 0:
        return np.zeros(0)
    both = np.asarray(a.multiply(b).sum(axis=1), dtype=np.float64).ravel()
    either = np.diff(a.indptr) + np.diff(b.indptr) - both
    shares: NDArray[np.float64] = np.divide(both, either, out=np.zeros_like(both), where=either > 0)
    return shares
