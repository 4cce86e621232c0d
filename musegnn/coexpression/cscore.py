"""CS-CORE: co-expression corrected for depth, from moments over depth and one Gram pass.

Every weight of CS-CORE depends on a cell through its depth s alone. With ``g_j(s) = 1 / (mu_j + s a_j)`` and
``h_j = s g_j`` the sums over cells become

    num_jk = A_jk - mu_k C_jk - mu_j C_kj + mu_j mu_k den_jk

where A is the Gram matrix of the weighted counts and C and den follow from moments (``kernels/gram/README.md``).
The iterations need the moments only, and so no data.

Legend: n cells, N genes, K nodes of the moment expansion.

References
----------
Su, Xu, Shan, Cai, Zhao, Zhang (2023), Nature Communications 14:4846.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from scipy.special import erfc
from threadpoolctl import threadpool_limits

from musegnn.kernels.gram import accumulate_gram, symmetrize
from musegnn.kernels.moments import DepthBasis, accumulate_moments, chebyshev_order

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray
    from scipy.sparse import csr_matrix, spmatrix

NegativeVariance = Literal["clamp", "drop", "reference"]
Compat = Literal["R", "python"]

TOLERANCE = 0.05
MAX_ITERATIONS = 11
ROWS = 256
DENSE_CELLS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthMoments:
    """Weights at the nodes that stand for sums over cells: ``sum_i x_ij f(s_i) = sum_q first_jq f(nodes_q)``.

    Attributes
    ----------
    nodes
        Depths of the nodes, shape (K,), float64.
    first, second
        For sums with x and with x^2, shape (N, K), float64.
    cells
        For sums over cells alone, shape (K,), float64.
    """

    nodes: NDArray[np.float64]
    first: NDArray[np.float64]
    second: NDArray[np.float64]
    cells: NDArray[np.float64]

    def select(self, genes: NDArray[np.intp]) -> DepthMoments:
        """Keep some of the genes, in the order given."""
        return DepthMoments(nodes=self.nodes, first=self.first[genes], second=self.second[genes], cells=self.cells)


class MomentScan:
    """Collect :class:`DepthMoments` from blocks of cells.

    Parameters
    ----------
    n_genes
        Number of genes N.
    basis
        The expansion over the range of depths.
    """

    def __init__(self, n_genes: int, basis: DepthBasis) -> None:
        self._basis = basis
        self._first = np.zeros((n_genes, basis.order))
        self._second = np.zeros((n_genes, basis.order))  # with x (x - 1), see accumulate_moments
        self._cells = np.zeros(basis.order)

    def update(self, block: csr_matrix, depth: NDArray[np.float64]) -> None:
        """Add a block of counts, shape (b, N), of cells with these depths, shape (b,)."""
        polynomials = self._basis.evaluate(depth)
        accumulate_moments(block, polynomials, self._first, self._second)
        self._cells += polynomials.sum(axis=0)

    def finish(self) -> DepthMoments:
        """Give the weights at the nodes."""
        to_nodes = self._basis.to_nodes
        return DepthMoments(
            nodes=self._basis.nodes,
            first=to_nodes(self._first),
            second=to_nodes(self._first + self._second),
            cells=to_nodes(self._cells),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class IRLSFit:
    """Means and variances of the underlying expression.

    Attributes
    ----------
    mu, sigma
        Mean and variance relative to depth, shape (N,), float64. `sigma` may be negative.
    theta_median
        Median of mu^2/sigma over the genes where it is positive; NaN when there is none.
    iterations
        Iterations done, at most 11.
    converged
        Whether the last one moved no log theta by more than 0.05.
    """

    mu: NDArray[np.float64]
    sigma: NDArray[np.float64]
    theta_median: float
    iterations: int
    converged: bool

    @property
    def slope(self) -> NDArray[np.float64]:
        """The a_j = mu_j^2/T of the covariance weights; 0 when T is undefined, as all estimates are then 0."""
        if np.isnan(self.theta_median):
            return np.zeros_like(self.mu)
        result: NDArray[np.float64] = self.mu**2 / self.theta_median
        return result

    def test_variance(self, mode: NegativeVariance) -> NDArray[np.float64]:
        """Give the variance that the test uses: negative ones are 0 unless `mode` is ``reference``."""
        return self.sigma if mode == "reference" else np.maximum(self.sigma, 0.0)


def fit_irls(moments: DepthMoments, *, compat: Compat = "R") -> IRLSFit:
    """Estimate mean and variance of each gene by iteratively reweighted least squares.

    Parameters
    ----------
    moments
        Sums over depth of N genes.
    compat
        ``R``: a change of theta counts where both values are positive. ``python``: as CS-CORE's Python package,
        where a negative theta was set to infinity in place, so that one turning positive forces another iteration.

    Returns
    -------
    IRLSFit
        Genes without counts have `mu` 0 and `sigma` 0.

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
        converged=delta <= TOLERANCE,
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
    both = (theta > 0.0) & (previous > 0.0) & np.isfinite(theta)
    if not both.any():
        return 0.0
    return float(np.abs(np.log(theta[both]) - np.log(previous[both])).max())


class GramScan:
    """Collect over blocks of cells what the covariance and the test need beyond moments.

    Parameters
    ----------
    fit
        Means and variances of N genes.
    mode
        What to do with genes of negative variance estimate. ``reference`` keeps one block of 1024 cells x N genes
        in dense form at a time, and ``2 * N * (negative genes)`` sums.
    """

    def __init__(self, fit: IRLSFit, mode: NegativeVariance) -> None:
        variance = fit.test_variance(mode)
        n_genes = len(fit.mu)
        self._fit = fit
        self._slopes = np.ascontiguousarray(np.stack([fit.slope, variance], axis=1))
        self.gram = np.zeros((n_genes, n_genes, 2))
        exact = (fit.sigma < 0.0) & (mode == "reference")
        self.exact: NDArray[np.intp] = np.flatnonzero(exact)
        self.exact_numerator = np.zeros((len(self.exact), n_genes))
        self.exact_denominator = np.zeros((len(self.exact), n_genes))

    def update(self, block: csr_matrix, depth: NDArray[np.float64]) -> None:
        """Add a block of counts, shape (b, N), of cells with these depths, shape (b,)."""
        accumulate_gram(block, depth, self._fit.mu, self._slopes, self.gram)
        if len(self.exact):
            for start in range(0, len(depth), DENSE_CELLS):
                self._add_exact(block[start : start + DENSE_CELLS], depth[start : start + DENSE_CELLS])

    def _add_exact(self, block: csr_matrix, depth: NDArray[np.float64]) -> None:
        """Add the sums of the test as they are defined, for pairs with a gene of negative variance."""
        mu = self._fit.mu
        s = depth[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            h = s / (mu + s * self._slopes[:, 1])
            weighted = (block.toarray() / s - mu) * h
        self.exact_numerator += weighted[:, self.exact].T @ weighted
        self.exact_denominator += h[:, self.exact].T @ h


@dataclass(frozen=True, slots=True, kw_only=True)
class Stripe:
    """Statistics of some rows against all columns from the first of these rows on.

    Attributes
    ----------
    start
        First row, and gene of the first column.
    z
        Test statistic, NaN where it is not tested, shape (r, N - start), float64.
    estimate
        Estimate clipped to [-1, 1], 0 where a variance estimate is not positive, shape (r, N - start), float64.
    """

    start: int
    z: NDArray[np.float64]
    estimate: NDArray[np.float64]


def finish(moments: DepthMoments, scan: GramScan, fit: IRLSFit, mode: NegativeVariance) -> Iterator[Stripe]:
    """Turn moments and Gram matrices into statistics, some rows at a time.

    Parameters
    ----------
    moments
        Sums over depth of the N genes.
    scan
        After its last block.
    fit
        Means and variances.
    mode
        As given to `scan`. ``drop`` leaves the pairs of genes with negative variance untested.

    Yields
    ------
    Stripe
        Rows in order; only columns from the diagonal on are meaningful.
    """
    n_genes = len(fit.mu)
    covariance = _Expansion(moments, fit.mu, fit.slope)
    test = _Expansion(moments, fit.mu, fit.test_variance(mode))
    untested = fit.mu <= 0.0
    if mode == "drop":
        untested = untested | (fit.sigma < 0.0)
    positive = fit.sigma > 0.0
    scale = np.sqrt(np.where(positive, fit.sigma, 1.0))
    for start in range(0, n_genes, ROWS):
        stop = min(start + ROWS, n_genes)
        rows, columns = slice(start, stop), slice(start, n_genes)
        with np.errstate(divide="ignore", invalid="ignore"):
            estimate = covariance.numerator(scan.gram[rows, columns, 0], rows, columns)
            estimate /= covariance.denominator(rows, columns)
            estimate /= scale[rows, None] * scale[columns]
            numerator = test.numerator(scan.gram[rows, columns, 1], rows, columns)
            denominator = test.denominator(rows, columns)
            _put_exact(scan, start, stop, numerator, denominator)
            z = numerator / np.sqrt(denominator)
        estimate = np.where(positive[rows, None] & positive[columns], np.clip(estimate, -1.0, 1.0), 0.0)
        z[untested[rows]] = np.nan
        z[:, untested[columns]] = np.nan
        yield Stripe(start=start, z=z, estimate=estimate)


class _Expansion:
    """The terms of num and den that follow from moments, for one weighting."""

    def __init__(self, moments: DepthMoments, mu: NDArray[np.float64], slope: NDArray[np.float64]) -> None:
        s = moments.nodes
        with np.errstate(divide="ignore", invalid="ignore"):
            g = np.where(mu[:, None] > 0.0, 1.0 / (mu[:, None] + s * slope[:, None]), 0.0)
        self._h = s * g
        self._cells = moments.cells
        crossed = moments.first * g
        centre = mu[:, None] * self._h
        self._left = np.concatenate([crossed - centre * moments.cells, centre], axis=1)
        self._right = np.concatenate([centre, crossed], axis=1)

    def numerator(self, gram: NDArray[np.float64], rows: slice, columns: slice) -> NDArray[np.float64]:
        result: NDArray[np.float64] = gram - self._left[rows] @ self._right[columns].T
        return result

    def denominator(self, rows: slice, columns: slice) -> NDArray[np.float64]:
        result: NDArray[np.float64] = (self._h[rows] * self._cells) @ self._h[columns].T
        return result


def _put_exact(
    scan: GramScan, start: int, stop: int, numerator: NDArray[np.float64], denominator: NDArray[np.float64]
) -> None:
    """Replace the rows and columns of genes whose sums were taken as defined."""
    for k, gene in enumerate(scan.exact):
        if start <= gene < stop:
            numerator[gene - start] = scan.exact_numerator[k, start:]
            denominator[gene - start] = scan.exact_denominator[k, start:]
        if gene >= start:
            numerator[:, gene - start] = scan.exact_numerator[k, start:stop]
            denominator[:, gene - start] = scan.exact_denominator[k, start:stop]


@dataclass(frozen=True, slots=True, kw_only=True)
class CSCoreResult:
    """All pairs of an in-memory run.

    Attributes
    ----------
    fit
        Means, variances and how they were found.
    z
        Test statistic, symmetric, NaN where not tested, shape (N, N), float64.
    estimate
        Estimate, symmetric, diagonal 1, shape (N, N), float64.
    order
        Order K of the moment expansion.
    """

    fit: IRLSFit
    z: NDArray[np.float64]
    estimate: NDArray[np.float64]
    order: int

    @property
    def p_value(self) -> NDArray[np.float64]:
        """Two-sided normal p-value of each pair, which keeps its tail down to 1e-308."""
        result: NDArray[np.float64] = erfc(np.abs(self.z) / np.sqrt(2.0))
        return result


def cscore(
    counts: spmatrix | ArrayLike,
    depth: ArrayLike,
    *,
    negative_variance: NegativeVariance = "clamp",
    order: int | None = None,
    compat: Compat = "R",
) -> CSCoreResult:
    """Run CS-CORE on a matrix in memory.

    Parameters
    ----------
    counts
        Whole non-negative numbers below 2^31, cells x genes, shape (n, N), sparse or dense.
    depth
        Total counts of each cell, over all genes rather than those in `counts`, all positive, shape (n,).
    negative_variance
        Genes with a negative variance estimate: ``clamp`` uses the Poisson variance in the test, ``drop`` leaves
        them untested, ``reference`` computes what CS-CORE computes.
    order
        Order K of the moment expansion; ``None``: exact to rounding for the range of depths.
    compat
        Rule of convergence, see :func:`fit_irls`.

    Returns
    -------
    CSCoreResult
        Genes without counts have z NaN and estimate 0.

    Raises
    ------
    ValueError
        When counts are not whole non-negative numbers, or a depth is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> depth = rng.integers(500, 1500, 400)
    >>> shared = rng.gamma(2.0, 0.5, 400)
    >>> counts = rng.poisson(depth[:, None] * np.stack([shared, shared, np.ones(400)], axis=1) / 300)
    >>> result = cscore(counts, depth)
    >>> bool(result.z[0, 1] > 8 > 3 > abs(result.z[0, 2]))
    True

    References
    ----------
    Su et al. (2023), Nature Communications 14:4846.
    """
    block = _as_counts(counts)
    s = np.ascontiguousarray(depth, dtype=np.float64)
    if s.shape != (block.shape[0],) or not (np.isfinite(s) & (s > 0)).all():
        bad = int((~(np.isfinite(s) & (s > 0))).sum())
        msg = f"depth must be {block.shape[0]} positive numbers, got shape {s.shape} with {bad} that are not"
        raise ValueError(msg)
    lowest, highest = float(s.min()), float(s.max())
    basis = DepthBasis(lowest, highest, order or chebyshev_order(lowest, highest))
    n_genes = block.shape[1]
    z, estimate = np.empty((n_genes, n_genes)), np.empty((n_genes, n_genes))
    # The products here are small: more threads would wait for each other, and change the last bits.
    with threadpool_limits(limits=1, user_api="blas"):
        moment_scan = MomentScan(n_genes, basis)
        moment_scan.update(block, s)
        moments = moment_scan.finish()
        fit = fit_irls(moments, compat=compat)
        gram_scan = GramScan(fit, negative_variance)
        gram_scan.update(block, s)
        for stripe in finish(moments, gram_scan, fit, negative_variance):
            stop = stripe.start + len(stripe.z)
            z[stripe.start : stop, stripe.start :] = stripe.z
            estimate[stripe.start : stop, stripe.start :] = stripe.estimate
    symmetrize(z)
    symmetrize(estimate)
    np.fill_diagonal(estimate, 1.0)
    return CSCoreResult(fit=fit, z=z, estimate=estimate, order=basis.order)


def _as_counts(counts: spmatrix | ArrayLike) -> csr_matrix:
    from scipy.sparse import csr_matrix

    matrix: csr_matrix = csr_matrix(cast("Any", counts))  # the stubs of scipy know no common type of inputs
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    values = matrix.data
    if len(values) and not ((values == np.floor(values)) & (values >= 0) & (values < 2**31)).all():
        msg = "counts must be whole numbers in [0, 2^31)"
        raise ValueError(msg)
    return csr_matrix((values.astype(np.int32), matrix.indices, matrix.indptr), shape=matrix.shape)
