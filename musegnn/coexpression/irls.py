"""Mean and variance of each gene's underlying expression, by least squares on moments over depth.

All weights of the iterations depend on a cell through its depth alone, so the moments of one pass over the counts
stand for the cells (``kernels/moments/README.md``) and iterations need no data.

Legend: N genes, K nodes of the moment expansion.

References
----------
Su, Xu, Shan, Cai, Zhao, Zhang (2023), Nature Communications 14:4846.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from musegnn.kernels.moments import accumulate_moments

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from musegnn.kernels.moments import DepthBasis

NegativeVariance = Literal["clamp", "drop", "reference"]
Compat = Literal["R", "python"]

SHORT = 1024
TOLERANCE = 0.05
MAX_ITERATIONS = 11


class DepthMoments(NamedTuple):
    """Weights at K nodes that stand for sums over cells: ``sum_i x_ij f(s_i) = sum_q first_jq f(nodes_q)``.

    `nodes` are depths, shape (K,); `first` and `second` are for sums with x and with x^2, shape (N, K); `cells` is for
    sums over cells alone, shape (K,); all float64.
    """

    nodes: NDArray[np.float64]
    first: NDArray[np.float64]
    second: NDArray[np.float64]
    cells: NDArray[np.float64]


class MomentScan:
    """Collects :class:`DepthMoments` of N genes from blocks of cells."""

    def __init__(self, n_genes: int, basis: DepthBasis) -> None:
        self._basis = basis
        self._first = np.zeros((n_genes, basis.order))
        self._second = np.zeros((n_genes, basis.order))  # with x (x - 1), see accumulate_moments
        self._cells = np.zeros(basis.order)

    def update(self, block: csr_matrix, depth: NDArray[np.float64]) -> None:
        """Add a block of counts, shape (b, N), of cells with these depths, shape (b,)."""
        polynomials = self._basis.evaluate(depth)
        first, second = np.empty_like(self._first), np.empty_like(self._second)
        # Long sums lose digits that cancellation in z then misses; sums of short sums lose fewer.
        for start in range(0, block.shape[0], SHORT):
            part = slice(start, start + SHORT)
            first[:], second[:] = 0.0, 0.0
            accumulate_moments(block[part], polynomials[part], first, second)
            self._first += first
            self._second += second
            self._cells += polynomials[part].sum(axis=0)

    def finish(self) -> DepthMoments:
        """Return the weights at the nodes."""
        to_nodes = self._basis.to_nodes
        return DepthMoments(
            nodes=self._basis.nodes,
            first=to_nodes(self._first),
            second=to_nodes(self._first + self._second),
            cells=to_nodes(self._cells),
        )


class IRLSFit(NamedTuple):
    """Means and variances of the underlying expression.

    Attributes
    ----------
    mu, sigma
        Mean and variance relative to depth, shape (N,), float64. `sigma` may be negative.
    theta_median
        Median of mu^2/sigma over the genes where it is positive; NaN when there is none.
    iterations
        Number of iterations, at most 11.
    converged
        Whether the last one moved no log theta by more than 0.05; false where no gene had a positive theta before and
        after it, so that there was none to compare (iterations stop there as in R).
    """

    mu: NDArray[np.float64]
    sigma: NDArray[np.float64]
    theta_median: float
    iterations: int
    converged: bool

    @property
    def has_nothing_to_settle(self) -> bool:
        """Whether iterations stopped for want of a gene with a positive variance, rather than at a fixed point."""
        return not self.converged and self.iterations < MAX_ITERATIONS

    @property
    def slope(self) -> NDArray[np.float64]:
        """The a_j = mu_j^2/T of the covariance weights; 0 when T is undefined, as all estimates are then 0."""
        if np.isnan(self.theta_median):
            return np.zeros_like(self.mu)
        result: NDArray[np.float64] = self.mu**2 / self.theta_median
        return result

    def test_variance(self, mode: NegativeVariance = "clamp") -> NDArray[np.float64]:
        """Return the variance that the test uses: negative ones are 0 unless `mode` is ``reference``."""
        return self.sigma if mode == "reference" else np.maximum(self.sigma, 0.0)


def fit_irls(moments: DepthMoments, *, compat: Compat = "R") -> IRLSFit:
    """Estimate mean and variance of each gene by iteratively reweighted least squares; 0 for genes without counts.

    Parameters
    ----------
    moments
        Sums over depth of N genes.
    compat
        Rule of convergence. ``R``: a change of theta counts where both values are positive. ``python``: as CS-CORE's
        Python package, where a negative theta was set to infinity in place, so that one turning positive forces another
        iteration.

    References
    ----------
    Su et al. (2023), Methods, "Estimation with iteratively reweighted least squares".
    """
    s, first, second, cells = moments.nodes, moments.first, moments.second, moments.cells
    s2 = s * s
    has_counts = (second != 0.0).any(axis=1)
    mu = np.where(has_counts, (first @ s) / (cells @ s2), 0.0)
    sigma = _variance(mu, np.ones((len(mu), len(s))), moments)
    theta = _theta(mu, sigma, has_counts)
    delta, iterations = np.inf, 0
    while delta > TOLERANCE and iterations < MAX_ITERATIONS:
        median = _positive_median(theta)
        weight = _mean_weight(mu, median, s)
        mu = ((first / weight) @ s) / ((s2 / weight) @ cells)
        mu = np.where(has_counts, mu, 0.0)
        sigma = _variance(mu, _mean_weight(mu, median, s) ** 2, moments)
        previous = np.where(theta < 0.0, np.inf, theta) if compat == "python" else theta
        theta = _theta(mu, sigma, has_counts)
        delta = _largest_change(theta, previous)
        iterations += 1
    return IRLSFit(
        mu=mu,
        sigma=sigma,
        theta_median=_positive_median(theta),
        iterations=iterations,
        converged=0.0 <= delta <= TOLERANCE,
    )


def _mean_weight(mu: NDArray[np.float64], median: float, s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute s mu + s^2 mu^2/T, and 1 where that is not positive, shape (N, K)."""
    weight = s * mu[:, None] + (s * s) * (mu * mu)[:, None] / median
    return np.where(weight > 0.0, weight, 1.0)


def _variance(mu: NDArray[np.float64], h: NDArray[np.float64], moments: DepthMoments) -> NDArray[np.float64]:
    """Compute sum s^2 (R^2 - s mu)/h / sum s^4/h with R = x - s mu, shape (N,)."""
    s, s2, m = moments.nodes, moments.nodes**2, mu[:, None]
    terms = moments.second - 2.0 * m * s * moments.first + (s2 * m * m - s * m) * moments.cells
    numerator = ((terms / h) * s2).sum(axis=1)
    result: NDArray[np.float64] = numerator / ((s2 * s2 / h) @ moments.cells)
    return np.where(mu > 0.0, result, 0.0)


def _theta(mu: NDArray[np.float64], sigma: NDArray[np.float64], has_counts: NDArray[np.bool_]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(has_counts, mu * mu / sigma, np.nan)


def _positive_median(theta: NDArray[np.float64]) -> float:
    positive = theta[theta > 0.0]
    return float(np.median(positive)) if len(positive) else float("nan")


def _largest_change(theta: NDArray[np.float64], previous: NDArray[np.float64]) -> float:
    """Return the largest change of a log theta, and minus infinity where no two can be compared, as R's max does."""
    both = (theta > 0.0) & (previous > 0.0) & np.isfinite(theta)
    return float(np.abs(np.log(theta[both]) - np.log(previous[both])).max(initial=-np.inf))
