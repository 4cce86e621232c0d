"""What two datasets have in common: shared genes, their neighbourhood overlaps, and the genes of one only.

Legend: A shared genes, N genes of a dataset.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from musegnn.kernels.overlap import NeighbourSets, jaccard

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from musegnn.graph import GraphData


@dataclass(frozen=True, slots=True, kw_only=True)
class PairOverlap:
    """Genes that datasets i and j have in common, and genes of one of them.

    Attributes
    ----------
    rows_i, rows_j
        Rows of the shared trainable genes, ordered by gene key, shape (A,), int64.
    weight
        Overlap of their neighbourhoods, in [0, 1], shape (A,), float64.
    pool_i, pool_j
        Rows of the trainable genes that the other dataset lacks and that have a positive trainable neighbour, int64.
    """

    rows_i: NDArray[np.int64]
    rows_j: NDArray[np.int64]
    weight: NDArray[np.float64]
    pool_i: NDArray[np.int64]
    pool_j: NDArray[np.int64]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(part.nbytes for part in (self.rows_i, self.rows_j, self.weight, self.pool_i, self.pool_j))

    def turned(self) -> PairOverlap:
        """Return the same with i and j exchanged."""
        return PairOverlap(
            rows_i=self.rows_j, rows_j=self.rows_i, weight=self.weight, pool_i=self.pool_j, pool_j=self.pool_i
        )


KEEP_BYTES = 1 << 28


class Overlaps:
    """Overlaps of all pairs of datasets, each computed when it is asked for.

    The pairs asked for last are kept, up to KEEP_BYTES: of many datasets, most pairs do not come back soon.
    """

    def __init__(self, graphs: Sequence[GraphData]) -> None:
        self._graphs = graphs
        self._keys = np.array(
            sorted({key for graph in graphs for key in graph.keys[graph.trainable].tolist()}), dtype=str
        )
        self._members: dict[int, _Members] = {}
        self._neighbours: dict[int, NeighbourSets] = {}
        self._pairs: OrderedDict[tuple[int, int], PairOverlap] = OrderedDict()
        self._kept = 0

    def pair(self, i: int, j: int) -> PairOverlap:
        """Return what datasets `i` and `j` have in common."""
        key = (min(i, j), max(i, j))
        if key in self._pairs:
            self._pairs.move_to_end(key)
        else:
            self._pairs[key] = self._compute(*key)
            self._kept += self._pairs[key].nbytes
            while self._kept > KEEP_BYTES and len(self._pairs) > 1:
                self._kept -= self._pairs.popitem(last=False)[1].nbytes
        found = self._pairs[key]
        return found if i <= j else found.turned()

    def _compute(self, i: int, j: int) -> PairOverlap:
        a, b = self._genes(i), self._genes(j)
        shared = (a.row >= 0) & (b.row >= 0)
        rows_a, rows_b = a.row[shared], b.row[shared]
        return PairOverlap(
            rows_i=rows_a,
            rows_j=rows_b,
            weight=jaccard(self._sets(i), self._sets(j), rows_a, rows_b),
            pool_i=_without(a.can_contrast, rows_a),
            pool_j=_without(b.can_contrast, rows_b),
        )

    def _genes(self, i: int) -> _Members:
        if i not in self._members:
            graph = self._graphs[i]
            trainable = np.flatnonzero(graph.trainable)
            row = np.full(len(self._keys), -1, dtype=np.int64)
            row[np.searchsorted(self._keys, graph.keys[trainable])] = trainable
            self._members[i] = _Members(row=row, can_contrast=graph.trainable & graph.has_positive)
        return self._members[i]

    def _sets(self, i: int) -> NeighbourSets:
        if i not in self._neighbours:
            graph, row = self._graphs[i], self._genes(i).row
            # A held-out gene is in no set: its identity must not tie two datasets together.
            gene = np.full(graph.n_genes, -1, dtype=np.int32)
            here = np.flatnonzero(row >= 0)
            gene[row[here]] = here
            edges = graph.edges
            self._neighbours[i] = NeighbourSets(
                indptr=edges.indptr, indices=edges.indices, z=edges.z, gene=gene, n_genes=len(row)
            )
        return self._neighbours[i]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Members:
    """The row of each gene of the atlas in one dataset, -1 where it is missing, and which rows a contrast may draw."""

    row: NDArray[np.int64]
    can_contrast: NDArray[np.bool_]


def _without(chosen: NDArray[np.bool_], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    rest = chosen.copy()
    rest[rows] = False
    return np.flatnonzero(rest)
