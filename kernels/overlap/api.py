"""Overlaps of signed neighbourhoods of genes in two graphs.

Legend: N rows of a graph, E entries, G genes of all graphs together, A pairs of rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from musegnn.kernels.moments.api import Impl, check_array, use_numba

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class NeighbourSets:
    """The neighbourhood of each row of a graph as the set of (gene, sign) of its neighbours.

    Attributes
    ----------
    indptr, indices
        The graph as CSR without repeated columns: (N + 1,) int64 and (E,) int32.
    z
        Its entries; a neighbour's sign is negative where this is below 0, (E,), float32.
    gene
        What each row is called in all graphs, in [0, `n_genes`), no two alike; -1 for rows that are in no set, (N,),
        int32.
    n_genes
        G.

    Raises
    ------
    TypeError
        When an array has another dtype or memory order.
    ValueError
        When shapes do not fit, or offsets, columns or genes are out of range.

    Examples
    --------
    >>> sets = NeighbourSets(
    ...     indptr=np.array([0, 2, 3, 4]),
    ...     indices=np.array([1, 2, 0, 0], dtype=np.int32),
    ...     z=np.array([3.0, -4.0, 3.0, -4.0], dtype=np.float32),
    ...     gene=np.array([7, 5, 6], dtype=np.int32),
    ...     n_genes=8,
    ... )
    >>> len(sets)
    3
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
        if self.indptr[0] != 0 or self.indptr[-1] != entries or bool((np.diff(self.indptr) < 0).any()):
            msg = f"indptr must rise from 0 to the number of entries ({entries})"
            raise ValueError(msg)
        if entries and not (self.indices.min() >= 0 and self.indices.max() < n):
            msg = f"indices must be in [0, {n}), got {self.indices.min()} to {self.indices.max()}"
            raise ValueError(msg)
        if n and not (self.gene.min() >= -1 and self.gene.max() < self.n_genes):
            msg = f"gene must be in [-1, {self.n_genes}), got {self.gene.min()} to {self.gene.max()}"
            raise ValueError(msg)

    def __len__(self) -> int:
        """Count the rows N."""
        return len(self.gene)

    @cached_property
    def packed(self) -> tuple[Ints, NDArray[np.uint32], NDArray[np.uint64], Ints]:
        """Sparse bitsets, made at the first use: offsets, places and bits of words that are not 0, set sizes."""
        from musegnn.kernels.overlap.impl import numba

        packed: tuple[Ints, NDArray[np.uint32], NDArray[np.uint64], Ints] = numba.pack(
            self.indptr, self.indices, self.z, self.gene, self.n_genes
        )
        return packed


def jaccard(
    a: NeighbourSets, b: NeighbourSets, rows_a: Ints, rows_b: Ints, *, impl: Impl = "auto"
) -> NDArray[np.float64]:
    """Return the size of the intersection over the size of the union, pair by pair.

    Parameters
    ----------
    a, b
        Two graphs that call their genes alike.
    rows_a, rows_b
        The set of row ``rows_a[k]`` of `a` is compared with that of row ``rows_b[k]`` of `b`, (A,), int64.
    impl
        ``reference``: products of sparse matrices; ``numba``: sparse bitsets; ``auto`` is ``numba``. Counts are whole
        numbers, so both give the same bits.

    Returns
    -------
    numpy.ndarray
        In [0, 1], 0 where both sets are empty, (A,), float64.

    Raises
    ------
    TypeError
        When rows are not int64.
    ValueError
        When the graphs have different numbers of genes, or rows do not fit.

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
        if len(rows) and not (rows.min() >= 0 and rows.max() < len(sets)):
            msg = f"{name} must be in [0, {len(sets)}), got {rows.min()} to {rows.max()}"
            raise ValueError(msg)
    if use_numba(impl):
        from musegnn.kernels.overlap.impl import numba

        both, size_a, size_b = numba.intersections(a.packed, b.packed, rows_a, rows_b, a.n_genes)
    else:
        from musegnn.kernels.overlap.impl import reference

        both, size_a, size_b = reference.intersections(a, b, rows_a, rows_b)
    either = size_a + size_b - both
    shares: NDArray[np.float64] = np.divide(both, either, out=np.zeros(len(both)), where=either > 0)
    return shares
