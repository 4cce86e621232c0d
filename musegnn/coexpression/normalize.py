"""sctransform v2 of a matrix in memory: the model, the residual variances and the residuals.

Legend: C cells, G genes, N selected genes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

from musegnn.coexpression.residuals import ResidualMoments, pearson_residuals, rank_variable
from musegnn.coexpression.sctransform import fit_sctransform, modelled_genes
from musegnn.coexpression.stats import GeneStats
from musegnn.random import stream

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.coexpression.sctransform import SCTModel


@dataclass(frozen=True, slots=True, kw_only=True)
class SCTResult:
    """A matrix with its fitted model.

    Attributes
    ----------
    counts
        The counts, shape (C, G).
    depth
        Total count of each cell, shape (C,), float64.
    stats
        Moments of the genes.
    model
        The model of the G genes.
    residual_mean, residual_variance
        Of the clipped residuals, NaN for genes without a model, shape (G,), float64.
    """

    counts: csr_matrix
    depth: NDArray[np.float64]
    stats: GeneStats
    model: SCTModel
    residual_mean: NDArray[np.float64]
    residual_variance: NDArray[np.float64]

    def ranking(self) -> NDArray[np.int64]:
        """Order the genes that have a model by falling residual variance; int64."""
        return rank_variable(self.residual_variance)

    def residuals(self, genes: NDArray[np.integer], *, clip: float | None = None) -> NDArray[np.float64]:
        """Compute the residuals of some genes.

        Parameters
        ----------
        genes
            Positions, shape (N,), int64.
        clip
            Bound of the absolute residual; ``None``: the square root of the number of cells.

        Returns
        -------
        numpy.ndarray
            Shape (C, N), float64.
        """
        return pearson_residuals(csr_matrix(self.counts[:, genes]), self.depth, self.model.take(genes), clip=clip)


def gene_stats(counts: csr_matrix) -> GeneStats:
    """Sum up the counts of each gene.

    Parameters
    ----------
    counts
        Counts without duplicates, shape (C, G).

    Returns
    -------
    GeneStats
        Of the G genes.
    """
    n_genes = counts.shape[1]
    values = counts.data.astype(np.float64)

    def sums(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.bincount(counts.indices, weights, minlength=n_genes), np.float64)

    return GeneStats(
        n_cells=counts.shape[0],
        total=sums(values),
        total_squares=sums(values * values),
        total_log1p=sums(np.log1p(values)),
        n_detected=np.bincount(counts.indices[values > 0.0], minlength=n_genes),
    )


def sctransform(
    counts: csr_matrix,
    *,
    min_cells: int = 5,
    n_cells: int = 5000,
    n_genes: int = 2000,
    seed: int = 0,
) -> SCTResult:
    """Fit the model and stream the residual variances.

    Parameters
    ----------
    counts
        Raw counts, shape (C, G); every cell has a count.
    min_cells
        Cells in which a gene must be detected to get a model.
    n_cells, n_genes
        Size of the seeded subsample on which parameters are estimated.
    seed
        Seed of the subsample.

    Returns
    -------
    SCTResult
        Model and moments of the G genes.

    Raises
    ------
    ValueError
        When a cell has no counts, or no gene is detected in `min_cells` cells.
    """
    counts = csr_matrix(counts)
    depth = np.asarray(counts.sum(axis=1), np.float64).ravel()
    if not bool(np.all(depth > 0.0)):
        msg = f"expected cells with counts, got {int((depth <= 0.0).sum())} without"
        raise ValueError(msg)
    stats = gene_stats(counts)
    kept = np.isin(counts.indices, modelled_genes(stats, min_cells)) & (counts.data > 0)
    rows = np.arange(len(depth))
    if len(rows) > n_cells:
        rows = np.sort(stream(seed, "sctransform_cells").choice(len(rows), n_cells, replace=False))
    model = fit_sctransform(
        counts[rows],
        depth[rows],
        stats,
        median_nonzero=float(np.median(counts.data[kept])),
        min_cells=min_cells,
        n_genes=n_genes,
        seed=seed,
    )
    moments = ResidualMoments(model)
    moments.update(counts, depth)
    mean, variance = moments.finish(depth)
    return SCTResult(
        counts=counts, depth=depth, stats=stats, model=model, residual_mean=mean, residual_variance=variance
    )
