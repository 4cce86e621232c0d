"""CS-CORE: co-expression corrected for depth, from moments over depth and one Gram pass.

Every weight of CS-CORE depends on a cell through its depth s alone. With ``g_j(s) = 1 / (mu_j + s a_j)`` and
``h_j = s g_j`` the sums over cells become

    num_jk = A_jk - mu_k C_jk - mu_j C_kj + mu_j mu_k den_jk

where A is the Gram matrix of the weighted counts and C and den follow from moments (``kernels/gram/README.md``).
The iterations need the moments only (:mod:`musegnn.coexpression.irls`).

Legend: n cells, N genes, K nodes of the moment expansion.

References
----------
Su, Xu, Shan, Cai, Zhao, Zhang (2023), Nature Communications 14:4846.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from scipy.special import erfc
from threadpoolctl import threadpool_limits

from musegnn.coexpression.irls import MomentScan, fit_irls
from musegnn.kernels.gram import accumulate_gram, symmetrize
from musegnn.kernels.moments import DepthBasis, chebyshev_order

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray
    from scipy.sparse import csr_matrix, spmatrix

    from musegnn.coexpression.irls import Compat, DepthMoments, IRLSFit, NegativeVariance

ROWS = 256
DENSE_CELLS = 1024


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
