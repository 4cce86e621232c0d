"""What two datasets have in common: shared genes, their neighbourhood overlaps, and the genes of one only.

Legend: A shared genes, N genes of a dataset.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from musegnn.graph import PartnerFile
from musegnn.kernels.overlap import NeighbourSets, jaccard
from musegnn.training.partner_files import read_partner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from musegnn.graph import AtlasGraph, ComparedGraph, SignedNeighbours


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

    The pairs asked for last are kept, up to KEEP_BYTES: of many datasets, most pairs do not come back soon. Datasets of
    other processes are read from their files when they are compared, and not kept.
    """

    def __init__(self, graphs: Sequence[AtlasGraph]) -> None:
        self._graphs = graphs
        self._pairs: OrderedDict[tuple[int, int], PairOverlap] = OrderedDict()
        self._kept = 0
        self._lock = threading.Lock()
        self._read: tuple[int, ComparedGraph] | None = None

    def graph(self, i: int) -> ComparedGraph:
        """Return what comparisons need of dataset `i`."""
        graph = self._graphs[i]
        if not isinstance(graph, PartnerFile):
            return graph
        if self._read is None or self._read[0] != i:  # one comparison asks several times
            self._read = i, read_partner(graph)
        return self._read[1]

    def pair(self, i: int, j: int) -> PairOverlap:
        """Return what datasets `i` and `j` have in common."""
        key = (min(i, j), max(i, j))
        with self._lock:
            if key in self._pairs:
                self._pairs.move_to_end(key)
            else:
                self._pairs[key] = compare_graphs(*(self.graph(k) for k in key))
                self._kept += self._pairs[key].nbytes
                while self._kept > KEEP_BYTES and len(self._pairs) > 1:
                    self._kept -= self._pairs.popitem(last=False)[1].nbytes
            found = self._pairs[key]
        return found if i <= j else found.turned()


def compare_graphs(a: ComparedGraph, b: ComparedGraph) -> PairOverlap:
    """Compute what two datasets have in common."""
    rows = [np.flatnonzero(graph.trainable) for graph in (a, b)]
    shared, *places = np.intersect1d(a.keys[rows[0]], b.keys[rows[1]], assume_unique=True, return_indices=True)
    rows_a, rows_b = (each[place] for each, place in zip(rows, places, strict=True))
    # genes of one dataset alone get numbers of their own, so that they count in the size of a union
    numbers = [np.full(graph.n_genes, -1, dtype=np.int32) for graph in (a, b)]
    free = len(shared)
    for number, own, each in zip(numbers, (rows_a, rows_b), rows, strict=True):
        others = np.setdiff1d(each, own, assume_unique=True)
        number[own] = np.arange(len(shared))
        number[others] = np.arange(free, free + len(others))
        free += len(others)
    sets_a, sets_b = (_sets(graph.neighbours, number, free) for graph, number in zip((a, b), numbers, strict=True))
    return PairOverlap(
        rows_i=rows_a,
        rows_j=rows_b,
        weight=jaccard(sets_a, sets_b, rows_a, rows_b),
        pool_i=_pool(a, rows_a),
        pool_j=_pool(b, rows_b),
    )


def _sets(neighbours: SignedNeighbours, gene: NDArray[np.int32], n_genes: int) -> NeighbourSets:
    # A held-out gene is in no set: its identity must not tie two datasets together.
    return NeighbourSets(
        indptr=neighbours.indptr.astype(np.int64),
        indices=neighbours.indices.astype(np.int32),
        z=np.where(neighbours.signs, np.float32(1.0), np.float32(-1.0)),
        gene=gene,
        n_genes=n_genes,
    )


def _pool(graph: ComparedGraph, shared: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the trainable genes with a positive neighbour that are not shared."""
    chosen = graph.trainable & (np.diff(graph.neighbours.positive.indptr) > 0)
    chosen[shared] = False
    return np.flatnonzero(chosen)
