"""Models of the counts of every gene: sctransform v2, a regularised negative binomial, and analytic Pearson.

Legend: C cells, G genes, M genes fitted one by one, K nodes of the moments.

The expected count is ``mu_ij = exp(intercept_j) s_i`` with s the depth of the cell (the slope of log10 depth is fixed
at ln 10). Parameters are estimated on all cells for some genes, then smoothed over all genes.

References
----------
Choudhary, S. and Satija, R. (2022), Genome Biol. 23, 27. Ahlmann-Eltze, C. and Huber, W. (2020), Bioinformatics 36,
5701-5702 (the gamma-Poisson fit). Lause, J., Berens, P. and Kobak, D. (2021), Genome Biol. 22, 258 (analytic).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from musegnn.coexpression.bandwidth import bandwidth_nrd, kernel_density
from musegnn.coexpression.regularize import StepOne, regularize
from musegnn.kernels.nb_intercept import DepthSums, fit_dispersion_from_sums, fit_intercept_from_sums
from musegnn.kernels.residuals import NoiseModel
from musegnn.random import stream

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.coexpression.counts import CountTable, GeneStats

STEP_ONE_GENES = 2000
MIN_STEP_ONE_CELLS = 5
MIN_THETA = 1e-7
MIN_THETA_RATIO = 1e-3
TREND_GENES = 100
TREND_SHARE = 0.1
TREND_REACH = 3.0
DISPERSION_START = 0.5
MEDIAN_DIVISOR = 5.0
PEARSON_THETA = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SCTModel:
    """The fitted model of G genes.

    Attributes
    ----------
    intercept
        Natural logarithm of the expected count per unit of depth, NaN for genes without a model, shape (G,), float64.
    theta
        Negative binomial size, ``inf`` for Poisson, NaN for genes without a model, shape (G,), float64.
    min_variance
        Lower bound of the variance in residuals: ``(median of the non-zero counts / 5)^2``.
    n_cells
        Number of cells of the dataset; residuals are clipped at its square root.
    report
        Counts of genes by role and the bandwidth of the smoothing: JSON values only.
    """

    intercept: NDArray[np.float64]
    theta: NDArray[np.float64]
    min_variance: float
    n_cells: int
    report: dict[str, int | float | bool] = field(default_factory=dict)

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return len(self.intercept)

    @property
    def has_model(self) -> NDArray[np.bool_]:
        """Genes that have parameters, shape (G,), bool."""
        return ~np.isnan(self.theta)

    @property
    def clip(self) -> float:
        """Bound of the absolute residual for variances: the square root of the number of cells."""
        return float(np.sqrt(self.n_cells))

    @property
    def profile_clip(self) -> float:
        """Bound of the absolute residual for profiles: ``sqrt(n_cells / 30)``."""
        return float(np.sqrt(self.n_cells / 30.0))

    def take(self, genes: NDArray[np.integer]) -> SCTModel:
        """Restrict the model to the genes at some positions, in the order given."""
        return replace(self, intercept=self.intercept[genes], theta=self.theta[genes])

    def noise(self, clip: float) -> NoiseModel:
        """Return the parameters of residuals that are clipped at this bound."""
        return NoiseModel(np.exp(self.intercept), self.theta, self.min_variance, clip)


def pearson_model(stats: GeneStats, total_depth: float, *, theta: float = PEARSON_THETA) -> SCTModel:
    """Return the model of G genes with the expected count ``s_i * total_j / sum_i s_i``; nothing is fitted.

    It has no lower bound of the variance, and residuals are clipped at ``sqrt(C)``. Genes without counts have no model.
    """
    detected = stats.total > 0
    intercept = np.full(len(stats.total), np.nan)
    intercept[detected] = np.log(stats.total[detected] / total_depth)
    return SCTModel(
        intercept=intercept, theta=np.where(detected, theta, np.nan), min_variance=0.0, n_cells=stats.n_cells
    )


def step_one_genes(stats: GeneStats, min_cells: int, *, seed: int, n_genes: int = STEP_ONE_GENES) -> NDArray[np.int64]:
    """Choose the genes that are fitted one by one: over-dispersed, detected in `min_cells` and in five cells or more.

    Of more than `n_genes` a seeded sample is drawn, spread evenly over abundance. The positions ascend, shape (M,),
    and may be none.
    """
    kept = modelled_genes(stats, min_cells)
    is_usable = (stats.n_detected >= MIN_STEP_ONE_CELLS) & (stats.variance > stats.mean)
    candidates = kept[is_usable[kept]]
    return sample_genes(candidates, np.log10(stats.geometric_mean[candidates]), n_genes, seed=seed)


def fit_sctransform(
    first: NDArray[np.float64],
    cells: NDArray[np.float64],
    nodes: NDArray[np.float64],
    table: CountTable,
    genes: NDArray[np.int64],
    stats: GeneStats,
    *,
    median_nonzero: float,
    min_cells: int = 5,
    bin_size: int = 500,
) -> SCTModel:
    """Fit the model of G genes on all cells from sums over depth.

    The chosen genes are fitted one by one, then :func:`~musegnn.coexpression.regularize.regularize` gives the
    parameters of all genes that are detected in `min_cells` cells; the others get no model.

    Parameters
    ----------
    first, cells, nodes
        Sums over depth of the M genes at K nodes, see :class:`~musegnn.coexpression.irls.DepthMoments`; shapes (M, K),
        (K,) and (K,), float64.
    table
        How often each count of these genes occurs.
    genes
        Their positions among all, from :func:`step_one_genes`, shape (M,), int64.
    stats
        Moments of the G genes over all C cells.
    median_nonzero
        Median of the non-zero counts of the genes with a model.
    min_cells
        Number of cells in which a gene must be detected.
    bin_size
        Number of genes that share one trend of dispersions.
    """
    kept = modelled_genes(stats, min_cells)
    fits = SumsFit(DepthSums(first, cells, nodes, *table.tails()), stats, genes)
    # Positions among the genes with a model, as the smoothing over genes wants them.
    places = np.searchsorted(kept, genes)
    step_one = fit_step_one(fits, places, stats.mean[genes], stats.variance[genes], bin_size=bin_size)
    return smooth_over_genes(step_one, kept, stats, median_nonzero)


def modelled_genes(stats: GeneStats, min_cells: int = 5) -> NDArray[np.int64]:
    """Return the ascending positions of the genes detected in at least `min_cells` cells.

    Raises
    ------
    ValueError
        When there is no such gene.
    """
    kept = np.flatnonzero(stats.n_detected >= min_cells)
    if not len(kept):
        msg = f"expected genes detected in at least {min_cells} cells, got none"
        raise ValueError(msg)
    return kept


def fit_step_one(
    fits: SumsFit,
    genes: NDArray[np.int64],
    mean: NDArray[np.float64],
    variance: NDArray[np.float64],
    *,
    bin_size: int = 500,
) -> StepOne:
    """Fit M genes one by one, at the positions `genes` among all, with moments `mean` and `variance` over all cells.

    In bins of `bin_size` genes: intercepts with a dispersion from moments; dispersions by adjusted profile likelihood;
    intercepts again with the bin's trend of dispersions. The size is ``theta = 1/d`` of the gene's own dispersion, at
    least 1e-7, and infinite where it exceeds the moment estimate ``mean^2 / (variance - mean)`` a thousandfold.
    """
    theta = np.empty(len(genes))
    intercept = np.empty(len(genes))
    for begin in range(0, len(genes), bin_size):
        part = slice(begin, begin + bin_size)
        dispersion, intercept[part] = _fit_bin(fits, part)
        with np.errstate(divide="ignore"):
            theta[part] = 1.0 / dispersion
    expected = mean * mean / (variance - mean)
    theta[expected / theta < MIN_THETA_RATIO] = np.inf
    return StepOne(genes=genes, theta=np.maximum(theta, MIN_THETA), intercept=intercept)


def sample_genes(
    candidates: NDArray[np.int64], log_mean: NDArray[np.float64], n_genes: int, *, seed: int
) -> NDArray[np.int64]:
    """Choose genes spread evenly over abundance; all of them when there are no more than `n_genes`.

    They are drawn without replacement, with probabilities inverse to the density of `log_mean`, their log10 geometric
    means.
    """
    if len(candidates) <= n_genes:
        return candidates
    weight = 1.0 / (kernel_density(log_mean, bandwidth_nrd(log_mean)) + np.finfo(np.float64).eps)
    drawn = stream(seed, "sctransform_genes").choice(candidates, n_genes, replace=False, p=weight / weight.sum())
    return np.sort(drawn)


class SumsFit:
    """The likelihoods of the genes at some positions of `stats`, from sums over the cells that these are of."""

    def __init__(self, sums: DepthSums, stats: GeneStats, genes: NDArray[np.int64]) -> None:
        self._sums = sums
        self._mean, self._variance = stats.mean[genes], stats.variance[genes]
        self.mean_depth = float(sums.cells @ sums.nodes) / stats.n_cells

    def _take(self, part: slice) -> DepthSums:
        sums, ends = self._sums, self._sums.tail_ends[part]
        first = int(sums.tail_ends[part.start - 1]) if part.start else 0
        runs = slice(first, int(ends[-1]))
        return sums._replace(
            first=sums.first[part],
            tail_ends=ends - first,
            tail_values=sums.tail_values[runs],
            tails=sums.tails[runs],
        )

    def moments(self, part: slice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean and variance of some genes."""
        return self._mean[part], self._variance[part]

    def intercept(
        self, part: slice, dispersion: NDArray[np.float64], start: NDArray[np.float64] | None
    ) -> NDArray[np.float64]:
        """Fit the intercepts of some genes."""
        return fit_intercept_from_sums(self._take(part), dispersion, start=start)

    def dispersion(
        self, part: slice, intercept: NDArray[np.float64], start: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Fit the dispersions of some genes."""
        return fit_dispersion_from_sums(self._take(part), intercept, start)


def _fit_bin(fits: SumsFit, part: slice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the dispersions of the genes of one bin and the intercepts under their trend."""
    mean, variance = fits.moments(part)
    rough = np.maximum(0.0, (variance - mean / fits.mean_depth) / (mean * mean))
    intercept = fits.intercept(part, rough, None)
    start = (variance - mean) / (mean * mean)
    dispersion = fits.dispersion(part, intercept, np.where(start > 0.0, start, DISPERSION_START))
    trend = running_median(np.exp(intercept) * fits.mean_depth, dispersion)
    return dispersion, fits.intercept(part, trend, intercept)


def running_median(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Smooth y over the rank of x by a weighted running median, shape (M,).

    Windows hold a tenth of the points and at least 100, with normal weights that reach three standard deviations; the
    ends repeat the first and the last full window. Fewer points than a window share one median.
    """
    n = len(x)
    order = np.argsort(x, kind="stable")
    half = int(min(n, max(TREND_SHARE * n, TREND_GENES)) // 2)
    if 2 * half + 1 > n:
        smooth = np.full(n, _weighted_median(y[order], _normal_weights(n)))
    else:
        windows = np.lib.stride_tricks.sliding_window_view(y[order], 2 * half + 1)
        weights = _normal_weights(2 * half + 1)
        middle = np.array([_weighted_median(window, weights) for window in windows])
        smooth = np.concatenate([np.full(half, middle[0]), middle, np.full(half, middle[-1])])
    result = np.empty(n)
    result[order] = smooth
    return result


def _normal_weights(size: int) -> NDArray[np.float64]:
    weights: NDArray[np.float64] = np.exp(-0.5 * np.linspace(-TREND_REACH, TREND_REACH, size) ** 2)
    return weights


def _weighted_median(y: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Return the smallest value up to which at least half of the weight lies."""
    order = np.argsort(y, kind="stable")
    upto = np.cumsum(weights[order])
    return float(y[order[np.searchsorted(upto, upto[-1] / 2.0)]])


def smooth_over_genes(step_one: StepOne, kept: NDArray[np.int64], stats: GeneStats, median_nonzero: float) -> SCTModel:
    """Regularise over the genes with a model and put them in their places among all."""
    fitted = regularize(
        step_one,
        geometric_mean=stats.geometric_mean[kept],
        mean=stats.mean[kept],
        variance=stats.variance[kept],
        mean_filtered_depth=float(stats.total[kept].sum()) / stats.n_cells,
    )
    intercept = np.full(len(stats.total), np.nan)
    theta = np.full(len(stats.total), np.nan)
    intercept[kept] = fitted.intercept
    theta[kept] = fitted.theta
    report: dict[str, int | float | bool] = {
        "genes": len(kept),
        "poisson_genes": int(fitted.poisson.sum()),
        "step1_genes": len(fitted.outlier),
        "outlier_genes": int(fitted.outlier.sum()),
        "has_trend": fitted.has_trend,
    }
    if fitted.has_trend:
        report["bandwidth"] = fitted.bandwidth
    return SCTModel(
        intercept=intercept,
        theta=theta,
        min_variance=(median_nonzero / MEDIAN_DIVISOR) ** 2,
        n_cells=stats.n_cells,
        report=report,
    )
