"""sctransform v2 of a matrix in memory, and its fit gene by gene from the counts of single cells.

The fit from cells is the specification of that from sums over depth, which builds use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csc_matrix, csr_matrix

from musegnn.coexpression.counts import CountTable
from musegnn.coexpression.irls import MomentScan
from musegnn.coexpression.residuals import ResidualMoments, rank_variable
from musegnn.coexpression.sctransform import (
    SCTModel,
    SumsFit,
    fit_sctransform,
    fit_step_one,
    modelled_genes,
    smooth_over_genes,
    step_one_genes,
)
from musegnn.kernels.moments import DepthBasis, chebyshev_order
from musegnn.kernels.nb_intercept import DepthSums, fit_dispersion, fit_intercept
from musegnn.kernels.residuals import dense_residuals

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.coexpression.counts import GeneStats
    from musegnn.coexpression.irls import DepthMoments
    from musegnn.coexpression.regularize import StepOne


class CellsFit:
    """The likelihoods of genes from the counts of some cells, shape (cells, genes), without explicit zeros."""

    def __init__(self, counts: csc_matrix, depth: NDArray[np.float64]) -> None:
        self._counts, self._depth = counts, depth
        self.mean_depth = float(depth.mean())

    def moments(self, part: slice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean and variance of some genes."""
        counts, n = self._counts[:, part].astype(np.float64), len(self._depth)  # squares exceed the counts' type
        mean = np.asarray(counts.mean(axis=0)).ravel()
        squares = np.asarray(counts.multiply(counts).sum(axis=0)).ravel()
        return mean, (squares - n * mean * mean) / (n - 1)

    def intercept(
        self, part: slice, dispersion: NDArray[np.float64], start: NDArray[np.float64] | None
    ) -> NDArray[np.float64]:
        """Fit the intercepts of some genes."""
        return fit_intercept(self._counts[:, part], self._depth, dispersion, start=start)

    def dispersion(
        self, part: slice, intercept: NDArray[np.float64], start: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Fit the dispersions of some genes."""
        return fit_dispersion(self._counts[:, part], self._depth, intercept, start)


@dataclass(frozen=True)
class SCTResult:
    """A matrix with its fitted model, and moments of the clipped residuals."""

    counts: csr_matrix
    depth: NDArray[np.float64]
    stats: GeneStats
    model: SCTModel
    residual_mean: NDArray[np.float64]
    residual_variance: NDArray[np.float64]

    def ranking(self) -> NDArray[np.int64]:
        """Order the genes that have a model by falling residual variance."""
        return rank_variable(self.residual_variance)

    def residuals(self, genes: NDArray[np.int64], *, clip: float | None = None) -> NDArray[np.float64]:
        """Compute the residuals of some genes, shape (C, N)."""
        return residuals(self.counts[:, genes], self.depth, self.model.take(genes), clip=clip)


def residuals(
    counts: csr_matrix, depth: NDArray[np.float64], model: SCTModel, *, clip: float | None = None
) -> NDArray[np.float64]:
    """Compute the residuals of all counts, shape (C, G)."""
    return dense_residuals(csr_matrix(counts), depth, model.noise(model.clip if clip is None else clip))


def count_table(counts: csr_matrix) -> CountTable:
    """Count how often each count of each gene occurs."""
    table = CountTable(counts.shape[1])
    whole = csr_matrix(counts).astype(np.int32)
    whole.eliminate_zeros()
    table.update(whole, np.ones(counts.shape[0], dtype=bool))
    return table


def gene_stats(counts: csr_matrix) -> GeneStats:
    """Sum up the counts of each gene."""
    return count_table(counts).stats(counts.shape[0])


def depth_sums(counts: csr_matrix, depth: NDArray[np.float64], order: int | None = None) -> DepthSums:
    """Return the sums of all genes over depth that builds collect range by range, and how often each count occurs."""
    sums = moments(counts, depth, order)
    return DepthSums(sums.first, sums.cells, sums.nodes, *count_table(counts).tails())


def moments(counts: csr_matrix, depth: NDArray[np.float64], order: int | None = None) -> DepthMoments:
    """Return the sums of all genes over depth that builds collect range by range."""
    lowest, highest = float(depth.min()), float(depth.max())
    scan = MomentScan(counts.shape[1], DepthBasis(lowest, highest, order or chebyshev_order(lowest, highest)))
    scan.update(csr_matrix(counts).astype(np.int32), depth)
    return scan.finish()


def step_one_from_cells(
    counts: csr_matrix,
    depth: NDArray[np.float64],
    genes: NDArray[np.int64],
    mean: NDArray[np.float64],
    variance: NDArray[np.float64],
) -> StepOne:
    """Fit genes one by one from the counts of cells, shape (C, M); moments are over all cells."""
    by_gene = csc_matrix(counts)
    by_gene.eliminate_zeros()
    return fit_step_one(CellsFit(by_gene, depth), genes, mean, variance)


def step_one_from_sums(
    counts: csr_matrix,
    depth: NDArray[np.float64],
    genes: NDArray[np.int64],
    mean: NDArray[np.float64],
    variance: NDArray[np.float64],
) -> StepOne:
    """Fit the same from sums over depth."""
    every = np.arange(counts.shape[1])
    return fit_step_one(SumsFit(depth_sums(counts, depth), gene_stats(counts), every), genes, mean, variance)


def fit_from_cells(
    counts: csr_matrix,
    depth: NDArray[np.float64],
    stats: GeneStats,
    *,
    median_nonzero: float,
    min_cells: int = 5,
    n_genes: int = 2000,
) -> SCTModel:
    """Fit the model as :func:`fit_sctransform` does, from the counts of the cells."""
    kept, genes = modelled_genes(stats, min_cells), step_one_genes(stats, min_cells, seed=0, n_genes=n_genes)
    places = np.searchsorted(kept, genes)
    step_one = step_one_from_cells(counts[:, genes], depth, places, stats.mean[genes], stats.variance[genes])
    return smooth_over_genes(step_one, kept, stats, median_nonzero)


def fit_from_sums(
    counts: csr_matrix,
    depth: NDArray[np.float64],
    stats: GeneStats,
    *,
    median_nonzero: float,
    min_cells: int = 5,
    n_genes: int = 2000,
    seed: int = 0,
    order: int | None = None,
) -> SCTModel:
    """Fit the model as builds do."""
    genes = step_one_genes(stats, min_cells, seed=seed, n_genes=n_genes)
    sums, table = moments(counts[:, genes], depth, order), count_table(counts[:, genes])
    return fit_sctransform(
        sums.first, sums.cells, sums.nodes, table, genes, stats, median_nonzero=median_nonzero, min_cells=min_cells
    )


def sctransform(counts: csr_matrix, *, min_cells: int = 5, n_genes: int = 2000, seed: int = 0) -> SCTResult:
    """Fit the model as builds do, and compute the moments of the residuals."""
    counts = csr_matrix(counts)
    depth = np.asarray(counts.sum(axis=1), np.float64).ravel()
    stats = gene_stats(counts)
    kept = np.isin(counts.indices, modelled_genes(stats, min_cells)) & (counts.data > 0)
    median = float(np.median(counts.data[kept]))
    model = fit_from_sums(counts, depth, stats, median_nonzero=median, min_cells=min_cells, n_genes=n_genes, seed=seed)
    moments = ResidualMoments(model.noise(model.clip))
    moments.update(counts, depth)
    return SCTResult(counts, depth, stats, model, *moments.finish(depth))
