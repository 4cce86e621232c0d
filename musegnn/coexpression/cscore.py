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
from musegnn.kernels.gram import WeightedGram, scattered_genes, symmetrize
from musegnn.kernels.moments import DepthBasis, chebyshev_order

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray
    from scipy.sparse import csr_matrix, spmatrix

    from musegnn.coexpression.irls import Compat, DepthMoments, IRLSFit, NegativeVariance
    from musegnn.kernels.gram.api import GramImpl

ROWS = 64
DENSE_CELLS = 1024


class ExactSums:
    """Sums of the test as they are defined, for pairs with a gene whose variance estimate is negative.

    The weights of such genes have a pole among the depths, where moments do not hold. Only mode ``reference`` needs
    them: one block of 1024 cells x N genes in dense form at a time, and ``2 * N * (negative genes)`` sums.
    """

    def __init__(self, fit: IRLSFit) -> None:
        self._fit = fit
        self.genes: NDArray[np.intp] = np.flatnonzero(fit.sigma < 0.0)
        self.numerator = np.zeros((len(self.genes), len(fit.mu)))
        self.denominator = np.zeros((len(self.genes), len(fit.mu)))

    def update(self, block: csr_matrix, depth: NDArray[np.float64]) -> None:
        """Add a block of counts, shape (b, N), of cells with these depths, shape (b,)."""
        for start in range(0, len(depth) if len(self.genes) else 0, DENSE_CELLS):
            s = depth[start : start + DENSE_CELLS, None]
            with np.errstate(divide="ignore", invalid="ignore"):
                h = s / (self._fit.mu + s * self._fit.sigma)
                weighted = (block[start : start + DENSE_CELLS].toarray() / s - self._fit.mu) * h
            self.numerator += weighted[:, self.genes].T @ weighted
            self.denominator += h[:, self.genes].T @ h


def weight_slopes(fit: IRLSFit, mode: NegativeVariance = "clamp") -> NDArray[np.float64]:
    """Return the slopes of the weights of the covariance and of the test, shape (N, 2), as the Gram pass takes them."""
    return np.ascontiguousarray(np.stack([fit.slope, fit.test_variance(mode)], axis=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stripe:
    """Statistics of some rows against all columns from the first of these rows on, shape (r, N - start), float64.

    `z` is NaN where it is not tested; `estimate` is in [-1, 1], and 0 where a variance estimate is not positive.
    """

    start: int
    z: NDArray[np.float64]
    estimate: NDArray[np.float64]


class PairStatistics:
    """Test statistics and estimates from moments and Gram matrices.

    Genes of negative variance are treated by `mode`: ``drop`` leaves their pairs untested, and ``reference`` takes
    their `exact` sums.
    """

    def __init__(
        self, moments: DepthMoments, fit: IRLSFit, mode: NegativeVariance = "clamp", exact: ExactSums | None = None
    ) -> None:
        self._covariance = _Expansion(moments, fit.mu, fit.slope)
        self._test = _Expansion(moments, fit.mu, fit.test_variance(mode))
        untested = fit.mu <= 0.0
        self._untested = untested | (fit.sigma < 0.0) if mode == "drop" else untested
        self._positive = fit.sigma > 0.0
        self._scale = np.sqrt(np.where(self._positive, fit.sigma, 1.0))
        self._exact = exact

    def stripes(self, gram: NDArray[np.float64], start: int) -> Iterator[Stripe]:
        """Compute the statistics of some rows, 64 at a time; only columns from the diagonal on are meaningful.

        Parameters
        ----------
        gram
            Values of :class:`~musegnn.kernels.gram.WeightedGram` for rows from `start` on, shape (R, N - start, 2).
        start
            First row, a multiple of 64 so that the bits do not depend on how rows are divided.
        """
        if start % ROWS:
            msg = f"start must be a multiple of {ROWS}, got {start}"
            raise ValueError(msg)
        n_genes = len(self._scale)
        for first in range(start, start + len(gram), ROWS):
            last = min(first + ROWS, start + len(gram))
            part = gram[first - start : last - start, first - start :]
            yield self._stripe(part, slice(first, last), slice(first, n_genes))

    def _stripe(self, gram: NDArray[np.float64], rows: slice, columns: slice) -> Stripe:
        with np.errstate(divide="ignore", invalid="ignore"):
            estimate = self._covariance.numerator(gram[:, :, 0], rows, columns)
            estimate /= self._covariance.denominator(rows, columns)
            estimate /= self._scale[rows, None] * self._scale[columns]
        defined = self._positive[rows, None] & self._positive[columns]
        estimate = np.where(defined, np.clip(estimate, -1.0, 1.0), 0.0)
        return Stripe(start=rows.start, z=self.test(gram[:, :, 1], rows, columns), estimate=estimate)

    def test(self, gram: NDArray[np.float64], rows: slice, columns: slice) -> NDArray[np.float64]:
        """Compute z of some rows and columns from the Gram matrix of the test; NaN where it is not tested."""
        with np.errstate(divide="ignore", invalid="ignore"):
            numerator = self._test.numerator(gram, rows, columns)
            denominator = self._test.denominator(rows, columns)
            if self._exact is not None:
                _put_exact(self._exact, rows, numerator, denominator)
            z: NDArray[np.float64] = numerator / np.sqrt(denominator)
        z[self._untested[rows]] = np.nan
        z[:, self._untested[columns]] = np.nan
        return z


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


def _put_exact(exact: ExactSums, rows: slice, numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> None:
    """Replace the rows and columns of genes whose sums were taken as defined."""
    for k, gene in enumerate(exact.genes):
        if rows.start <= gene < rows.stop:
            numerator[gene - rows.start] = exact.numerator[k, rows.start :]
            denominator[gene - rows.start] = exact.denominator[k, rows.start :]
        if gene >= rows.start:
            numerator[:, gene - rows.start] = exact.numerator[k, rows]
            denominator[:, gene - rows.start] = exact.denominator[k, rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class CSCoreResult:
    """All pairs of an in-memory run.

    `z` and `estimate` are symmetric, shape (N, N), float64, with z NaN where not tested and estimates 1 on the
    diagonal; `order` is that of the moment expansion.
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
    impl: GramImpl = "auto",
    device: str = "cpu",
) -> CSCoreResult:
    """Run CS-CORE on a matrix in memory; genes without counts have z NaN and estimate 0.

    Parameters
    ----------
    counts
        Whole non-negative numbers below 2^31, cells x genes, shape (n, N), sparse or dense.
    depth
        Total counts of each cell, over all genes rather than those in `counts`, all positive, shape (n,).
    negative_variance
        Genes with a negative variance estimate: ``clamp`` uses the Poisson variance in the test, as builds do, ``drop``
        leaves them untested, ``reference`` computes what CS-CORE computes.
    order
        Order K of the moment expansion; ``None``: exact to rounding for the range of depths.
    compat
        Rule of convergence, see :func:`fit_irls`.
    impl, device
        How the Gram matrices are summed, see :class:`~musegnn.kernels.gram.WeightedGram`.

    Raises
    ------
    ValueError
        When counts are not whole non-negative numbers, a depth is not positive, or there are no cells.

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
    """
    block = _as_counts(counts)
    if block.shape[0] == 0:
        msg = "expected counts of at least one cell, got none"
        raise ValueError(msg)
    s = np.ascontiguousarray(depth, dtype=np.float64)
    if s.shape != (block.shape[0],) or not (np.isfinite(s) & (s > 0)).all():
        bad = int((~(np.isfinite(s) & (s > 0))).sum())
        msg = f"depth must be {block.shape[0]} positive numbers, got shape {s.shape} with {bad} that are not"
        raise ValueError(msg)
    lowest, highest = float(s.min()), float(s.max())
    basis = DepthBasis(lowest, highest, order or chebyshev_order(lowest, highest))
    detected = np.bincount(block.indices, minlength=block.shape[1])
    # Sorted genes make the Gram pass faster and nothing else; see kernels/gram/README.md.
    ascending = np.argsort(detected, kind="stable")
    block = _take_genes(block, ascending)
    scattered = scattered_genes(detected[ascending], len(s))
    # The products here are small: more threads would wait for each other, and change the last bits.
    with threadpool_limits(limits=1, user_api="blas"):
        moment_scan = MomentScan(len(detected), basis)
        moment_scan.update(block, s)
        moments = moment_scan.finish()
        fit = fit_irls(moments, compat=compat)
        gram = WeightedGram(
            fit.mu, weight_slopes(fit, negative_variance), scattered=scattered, impl=impl, device=device
        )
        gram.add(block, s)
        exact = ExactSums(fit) if negative_variance == "reference" else None
        if exact is not None:
            exact.update(block, s)
        z, estimate = _whole(
            PairStatistics(moments, fit, negative_variance, exact).stripes(gram.values(), 0), ascending
        )
    fit = fit._replace(mu=_restore(fit.mu, ascending), sigma=_restore(fit.sigma, ascending))
    return CSCoreResult(fit=fit, z=z, estimate=estimate, order=basis.order)


def _whole(stripes: Iterator[Stripe], ascending: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Put stripes of sorted genes into whole symmetric matrices of z and estimate in the original order."""
    n_genes = len(ascending)
    z, estimate = np.empty((n_genes, n_genes)), np.empty((n_genes, n_genes))
    for stripe in stripes:
        stop = stripe.start + len(stripe.z)
        z[stripe.start : stop, stripe.start :] = stripe.z
        estimate[stripe.start : stop, stripe.start :] = stripe.estimate
    symmetrize(z)
    symmetrize(estimate)
    np.fill_diagonal(estimate, 1.0)
    rank = np.argsort(ascending)
    return _reorder(z, rank), _reorder(estimate, rank)


def _reorder(values: NDArray[np.float64], rank: NDArray[np.intp]) -> NDArray[np.float64]:
    return values[rank].take(rank, axis=1)


def _restore(values: NDArray[np.float64], ascending: NDArray[np.intp]) -> NDArray[np.float64]:
    result = np.empty_like(values)
    result[ascending] = values
    return result


def _take_genes(block: csr_matrix, genes: NDArray[np.intp]) -> csr_matrix:
    rank = np.empty(len(genes), dtype=block.indices.dtype)
    rank[genes] = np.arange(len(genes))
    return type(block)((block.data, rank[block.indices], block.indptr), shape=block.shape)


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
