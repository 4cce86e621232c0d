"""Overlaps of signed neighbourhoods of genes in two graphs.

Legend: N rows of a graph, E entries, G genes of all graphs together, A pairs of rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from musegnn.kernels.validation import Impl, check_array, check_pointers, check_range, load_impl, resolve_impl

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.kernels.validation import Floats, Ints


@dataclass(frozen=True, kw_only=True)
class NeighbourSets:
    """The neighbourhood of each row of a graph as the set of (gene, sign) of its neighbours, see :func:`jaccard`.

    Attributes
    ----------
    indptr, indices
        The graph as CSR without repeated columns: (N + 1,) int64 and (E,) int32.
    z
        Entries of the graph; a neighbour's sign is negative where this is below 0, (E,), float32.
    gene
        Number of each row's gene in all graphs, in [0, `n_genes`), no two alike; -1 for rows that are in no set,
        (N,), int32.
    n_genes
        Number of genes G.
    """

    indptr: Ints
    indices: NDArray[np.int32]
    z: NDArray[np.float32]
    gene: NDArray[np.int32]
    n_genes: int

    def __post_init__(self) -> None:
        n, entries = len(self.gene), len(self.indices)
        check_array("indptr", self.indptr, (n + 1,), np.int64)
        check_array("indices", self.indices, (entries,), np.int32)
        check_array("z", self.z, (entries,), np.float32)
        check_array("gene", self.gene, (n,), np.int32)
        check_pointers("indptr", self.indptr, entries)
        check_range("indices", self.indices, 0, n)
        check_range("gene", self.gene, -1, self.n_genes)

    def __len__(self) -> int:
        """Count the rows N."""
        return len(self.gene)

    @cached_property
    def packed(self) -> tuple[Ints, NDArray[np.uint32], NDArray[np.uint64], Ints]:
        """Sparse bitsets, made at the first use: offsets, places and bits of words that are not 0, set sizes."""
        packed: tuple[Ints, NDArray[np.uint32], NDArray[np.uint64], Ints] = self._pack("numba")
        return packed

    def _pack(self, impl: str) -> Any:  # what an implementation computes with
        return load_impl("overlap", impl).pack(self.indptr, self.indices, self.z, self.gene, self.n_genes)


def jaccard(a: NeighbourSets, b: NeighbourSets, rows_a: Ints, rows_b: Ints, *, impl: Impl = "auto") -> Floats:
    """Return the size of the intersection over that of the union, pair by pair: (A,) float64, 0 where both are empty.

    Parameters
    ----------
    a, b
        Two graphs with the same numbers of genes.
    rows_a, rows_b
        The set of row ``rows_a[k]`` of `a` is compared with that of row ``rows_b[k]`` of `b`, (A,), int64.
    impl
        ``reference``: products of sparse matrices; ``numba``: sparse bitsets. Counts are whole numbers, so results are
        bitwise identical.

    Examples
    --------
    >>> sets = NeighbourSets(
    ...     indptr=np.array([0, 2, 3, 4]),
    ...     indices=np.array([1, 2, 0, 0], dtype=np.int32),
    ...     z=np.array([3.0, -4.0, 3.0, 4.0], dtype=np.float32),
    ...     gene=np.array([7, 5, 6], dtype=np.int32),
    ...     n_genes=8,
    ... )
    >>> jaccard(sets, sets, np.array([0, 1, 0]), np.array([0, 2, 1])).tolist()
    [1.0, 1.0, 0.0]
    """
    if a.n_genes != b.n_genes:
        msg = f"both graphs must name as many genes, got {a.n_genes} and {b.n_genes}"
        raise ValueError(msg)
    for name, rows, sets in (("rows_a", rows_a, a), ("rows_b", rows_b, b)):
        check_array(name, rows, (len(rows_a),), np.int64)
        check_range(name, rows, 0, len(sets))
    chosen = resolve_impl(impl)
    packed = [sets.packed if chosen == "numba" else sets._pack(chosen) for sets in (a, b)]
    both, size_a, size_b = load_impl("overlap", chosen).intersections(*packed, rows_a, rows_b, a.n_genes)
    either = size_a + size_b - both
    shares: Floats = np.divide(both, either, out=np.zeros(len(both)), where=either > 0)
    return shares
