"""How often each count of each gene occurs: sums over cells that depend on nothing but the counts.

Legend: C cells, G genes, L distinct larger (gene, count) pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from musegnn.kernels.count_table import SMALL, accumulate_counts

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

KEYS = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneStats:
    """Moments of the raw counts x of each gene over the C cells used.

    Sums of x, of x^2 and of ln(1 + x), float64, and the number of cells with x > 0, int64, shapes (G,).
    """

    n_cells: int
    total: NDArray[np.float64]
    total_squares: NDArray[np.float64]
    total_log1p: NDArray[np.float64]
    n_detected: NDArray[np.int64]

    @property
    def mean(self) -> NDArray[np.float64]:
        """Arithmetic mean of x."""
        return self.total / self.n_cells

    @property
    def variance(self) -> NDArray[np.float64]:
        """Variance of x with ddof 1."""
        n = self.n_cells
        return (self.total_squares - self.total * self.total / n) / (n - 1)

    @property
    def geometric_mean(self) -> NDArray[np.float64]:
        """Return ``exp(mean ln(x + 1)) - 1``, as sctransform defines it (gmean_eps 1)."""
        result: NDArray[np.float64] = np.expm1(self.total_log1p / self.n_cells)
        return result


class CountTable:
    """The occurrences of every count above zero, per gene.

    Everything is an exact integer: tables of parts of the cells add up to the table of all, in any order.
    """

    def __init__(self, n_genes: int) -> None:
        self._small = np.zeros((n_genes, SMALL), dtype=np.int64)
        self._keys = np.zeros(0, dtype=np.int64)
        self._times = np.zeros(0, dtype=np.int64)
        self._pending: list[NDArray[np.int64]] = []

    @property
    def n_genes(self) -> int:
        """Number of genes G."""
        return len(self._small)

    def update(self, block: csr_matrix, keep: NDArray[np.bool_]) -> None:
        """Add the kept cells, marked in (b,), of a block of counts, shape (b, G), CSR int32 without zeros."""
        self._pending.append(accumulate_counts(block, keep, self._small))
        if sum(map(len, self._pending)) > KEYS:
            self._count_pending()

    def merge(self, other: CountTable) -> None:
        """Add the table of other cells and the same genes."""
        if other.n_genes != self.n_genes:
            msg = f"expected a table of {self.n_genes} genes, got {other.n_genes}"
            raise ValueError(msg)
        self._count_pending()
        other._count_pending()
        self._small += other._small
        self._add(other._keys, other._times)

    def take(self, genes: NDArray[np.integer]) -> CountTable:
        """Restrict the table to some genes, in the order given, each at most once."""
        self._count_pending()
        taken = CountTable(len(genes))
        taken._small = self._small[genes]
        place = np.full(self.n_genes, -1, dtype=np.int64)
        place[genes] = np.arange(len(genes))
        gene, count = place[self._keys >> 32], self._keys & 0xFFFFFFFF
        kept = gene >= 0
        taken._add((gene[kept] << 32) + count[kept], self._times[kept])
        return taken

    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return the arrays that the table consists of."""
        self._count_pending()
        return self._small, self._keys, self._times

    @classmethod
    def from_arrays(cls, small: NDArray[np.int64], keys: NDArray[np.int64], times: NDArray[np.int64]) -> CountTable:
        """Make a table of what :meth:`arrays` returned."""
        table = cls(0)
        table._small, table._keys, table._times = small, keys, times
        return table

    def large(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return gene, count and occurrences of the counts from 64 on, ascending by gene and count, shapes (L,)."""
        self._count_pending()
        return self._keys >> 32, self._keys & 0xFFFFFFFF, self._times

    @property
    def small(self) -> NDArray[np.int64]:
        """Occurrences of the counts 0 (left at 0) to 63, shape (G, 64), int64."""
        return self._small

    @property
    def largest(self) -> int:
        """Largest count, 0 without any."""
        _, count, _ = self.large()
        return int(max(count.max(initial=0), np.flatnonzero(self._small.any(axis=0)).max(initial=0)))

    @property
    def n_detected(self) -> NDArray[np.int64]:
        """Cells with a count, shape (G,), int64."""
        gene, _, times = self.large()
        result: NDArray[np.int64] = self._small.sum(axis=1) + self._by_gene(gene, times)
        return result

    def stats(self, n_cells: int) -> GeneStats:
        """Return the sums of x, x^2 and ln(1 + x), of which only the last is rounded."""
        value = np.arange(SMALL, dtype=np.int64)
        gene, count, times = self.large()
        total = self._small @ value + self._by_gene(gene, count * times)
        squares = self._small @ (value * value) + self._by_gene(gene, count * count * times)
        log1p = (self._small * np.log1p(value)).sum(axis=1)
        log1p += np.bincount(gene, np.log1p(count) * times, minlength=self.n_genes)
        return GeneStats(
            n_cells=n_cells,
            total=total.astype(np.float64),
            total_squares=squares.astype(np.float64),
            total_log1p=log1p,
            n_detected=self.n_detected,
        )

    def tails(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Count for each distinct count of each gene the cells that have it or a larger one.

        Returns the end of each gene's part, shape (G,), int64; the counts, ascending within a gene, int64; and the
        numbers of cells, float64. Their size does not depend on how large counts are.
        """
        rows, values = np.nonzero(self._small)
        gene, count, times = self.large()
        genes = np.concatenate([rows, gene])
        counts, occurrences = np.concatenate([values, count]), np.concatenate([self._small[rows, values], times])
        order = np.lexsort((counts, genes))
        ends = np.cumsum(np.bincount(genes, minlength=self.n_genes))
        upto = np.concatenate([[0], np.cumsum(occurrences[order])])
        tails = upto[ends][genes[order]] - upto[:-1]
        return ends, counts[order], tails.astype(np.float64)

    def median_nonzero(self) -> float:
        """Return the median of all counts above zero, of which there must be one, as numpy does."""
        _, count, times = self.large()
        values = np.concatenate([np.arange(SMALL), count])
        occurrences = np.concatenate([self._small.sum(axis=0), times])
        order = np.argsort(values, kind="stable")
        upto = np.cumsum(occurrences[order])
        if upto[-1] == 0:
            msg = "expected at least one non-zero count"
            raise ValueError(msg)
        middle = np.array([(upto[-1] + 1) // 2, upto[-1] // 2 + 1])
        return float(values[order][np.searchsorted(upto, middle)].mean())

    def _by_gene(self, gene: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
        result = np.zeros(self.n_genes, dtype=np.int64)
        np.add.at(result, gene, values)
        return result

    def _count_pending(self) -> None:
        if self._pending:
            keys, times = np.unique(np.concatenate(self._pending), return_counts=True)
            self._pending = []
            self._add(keys, times.astype(np.int64))

    def _add(self, keys: NDArray[np.int64], times: NDArray[np.int64]) -> None:
        merged, place = np.unique(np.concatenate([self._keys, keys]), return_inverse=True)
        total = np.zeros(len(merged), dtype=np.int64)
        np.add.at(total, place, np.concatenate([self._times, times]))
        self._keys, self._times = merged, total
