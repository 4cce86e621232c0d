"""Intercept and dispersion of one negative binomial model per gene.

Legend: C cells, G genes.

The model of gene j is ``x_ij ~ NB(mean mu_ij = exp(intercept_j) s_i, variance mu_ij + d_j mu_ij^2)``. Sums over
zero counts run over the distinct depths, so the cost is ``O(nnz + G U)`` per step for U distinct depths.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from musegnn.kernels.validation import Impl, load_impl

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csc_array, csc_matrix

    from musegnn.kernels.validation import Floats, Ints


class Problem(NamedTuple):
    """A counts matrix by genes with the depths of its non-zeros and the histogram of depths: E, E, U and U numbers."""

    indptr: NDArray[np.integer]
    data: NDArray[np.number]
    depth: Floats
    levels: Floats
    cells: Floats


def fit_intercept(
    counts: csc_matrix | csc_array,
    depth: Floats,
    dispersion: Floats,
    *,
    start: Floats | None = None,
    impl: Impl = "auto",
) -> Floats:
    """Estimate the intercepts (natural logarithm) by maximum likelihood, dispersions given: (G,) float64.

    Solves ``sum_i (x_ij - mu_ij) / (1 + d_j mu_ij) = 0``, which decreases in the intercept, by Newton steps, and by
    bisection of [-30, 30] where these do not settle.

    Parameters
    ----------
    counts
        Counts, CSC without duplicates, shape (C, G); every gene has a non-zero count.
    depth
        Positive depth per cell, shape (C,), float64.
    dispersion, start
        d >= 0, and first values of the result (``None``: ``log(mean(x / s))``), shape (G,), float64.
    """
    problem = _problem(counts, depth, dispersion)
    if start is None:
        start = np.log(counts.T @ (1.0 / depth) / len(depth))
    return _fit_intercept(problem, dispersion, start, impl)


def fit_dispersion(
    counts: csc_matrix | csc_array,
    depth: Floats,
    intercept: Floats,
    start: Floats,
    *,
    cox_reid: float = 0.99,
    impl: Impl = "auto",
) -> Floats:
    """Estimate the dispersions d >= 0 by the Cox-Reid adjusted profile likelihood, intercepts given: (G,) float64.

    The maximum over ``log d`` in [log 1e-16, log 1e16] that is uphill of `start`, of::

        sum_i [ sum_{k < x_i} log(1 + k d) - (x_i + 1/d) log(1 + mu_i d) ] - cox_reid/2 log sum_i 1/(1/mu_i + d)

    which is the negative binomial log-likelihood up to a constant, in a form without cancellation for small d.
    The result is 0 where the likelihood falls at ``d = 1e-8``.

    Parameters
    ----------
    counts, depth
        As in :func:`fit_intercept`.
    intercept, start
        Natural logarithm of the mean per unit of depth, and positive first values of d, shape (G,), float64.
    cox_reid
        Weight of the adjustment; 1 is the full one.

    References
    ----------
    Cox, D. R. and Reid, N. (1987), J. R. Stat. Soc. B 49, 1-39. McCarthy, D. J. et al. (2012), Nucleic Acids Res.
    40, 4288-4297, equation (4).
    """
    problem = _problem(counts, depth, intercept)
    _check_starts(start, intercept)
    tails = load_impl("nb_intercept", "numba").tail_counts(problem.indptr, problem.data)
    return _fit_dispersion(problem, tails, intercept, start, cox_reid, impl)


class DepthSums(NamedTuple):
    """All that the likelihoods need of the counts of G genes in any number of cells.

    Sums over cells of x f(s) and of f(s) are sums over K nodes for the functions f of depth that occur, whose poles
    lie at negative depths (``kernels/moments``); what depends on the count alone follows from how often each occurs.

    Attributes
    ----------
    first, cells
        Weights at the nodes of sums with x, shape (G, K), and of sums over cells, shape (K,), float64.
    nodes
        Depths of the nodes, shape (K,), float64.
    tail_ends
        End of each gene's part of the next two, shape (G,), int64.
    tail_values, tails
        Distinct counts above zero of each gene, ascending, int64, and cells with this count or a larger one, float64,
        shape (R,) each.
    """

    first: Floats
    cells: Floats
    nodes: Floats
    tail_ends: Ints
    tail_values: Ints
    tails: Floats


def fit_intercept_from_sums(sums: DepthSums, dispersion: Floats, *, start: Floats | None = None) -> Floats:
    """Estimate the intercepts as :func:`fit_intercept`, of any number of cells at the cost of K: (G,) float64."""
    problem = _problem_of_sums(sums, dispersion)
    if start is None:
        start = np.log((sums.first @ (1.0 / sums.nodes)) / sums.cells.sum())
    return _fit_intercept(problem, dispersion, start, "numba")


def fit_dispersion_from_sums(sums: DepthSums, intercept: Floats, start: Floats, *, cox_reid: float = 0.99) -> Floats:
    """Estimate the dispersions as :func:`fit_dispersion`, of any number of cells at the cost of K: (G,) float64."""
    problem = _problem_of_sums(sums, intercept)
    _check_starts(start, intercept)
    tails = (sums.tail_ends, sums.tail_values, sums.tails)
    return _fit_dispersion(problem, tails, intercept, start, cox_reid, "numba")


def _fit_intercept(problem: Problem, dispersion: Floats, start: Floats, impl: str) -> Floats:
    dispersion = np.ascontiguousarray(dispersion, np.float64)
    result: Floats = load_impl("nb_intercept", impl).fit_intercept(problem, dispersion, start)
    return result


def _fit_dispersion(
    problem: Problem, tails: tuple[Ints, Ints, Floats], intercept: Floats, start: Floats, cox_reid: float, impl: str
) -> Floats:
    numbers = (np.exp(intercept), np.ascontiguousarray(start, np.float64), float(cox_reid))
    result: Floats = load_impl("nb_intercept", impl).fit_dispersion(problem, tails, *numbers)
    return result


def _problem_of_sums(sums: DepthSums, per_gene: Floats) -> Problem:
    """Let the nodes stand for the cells: K entries per gene, K levels of depth."""
    n_genes, order = sums.first.shape
    if per_gene.shape != (n_genes,) or sums.cells.shape != (order,) or sums.nodes.shape != (order,):
        msg = f"expected sums of {len(per_gene)} genes at {len(sums.nodes)} nodes, got shape {sums.first.shape}"
        raise ValueError(msg)
    indptr = np.arange(n_genes + 1, dtype=np.int64) * order
    return Problem(indptr, sums.first.ravel(), np.tile(sums.nodes, n_genes), sums.nodes, sums.cells)


def _check_starts(start: Floats, intercept: Floats) -> None:
    if start.shape != intercept.shape or not bool(np.all(start > 0)):
        msg = f"expected positive starts of shape {intercept.shape}, got shape {start.shape} and minimum {start.min()}"
        raise ValueError(msg)


def _problem(counts: csc_matrix | csc_array, depth: Floats, per_gene: Floats) -> Problem:
    expected = (len(depth), len(per_gene))
    if counts.format != "csc" or counts.shape != expected:
        msg = f"expected CSC counts of shape {expected}, got {counts.format} of shape {counts.shape}"
        raise ValueError(msg)
    if not bool(np.all(depth > 0)):
        msg = f"expected positive depths, got a minimum of {depth.min()}"
        raise ValueError(msg)
    if bool(np.any(np.diff(counts.indptr) == 0)):
        msg = "expected a non-zero count in every gene, got genes without one"
        raise ValueError(msg)
    depth = np.ascontiguousarray(depth, np.float64)
    levels, cells = np.unique(depth, return_counts=True)
    return Problem(counts.indptr, counts.data, depth[counts.indices], levels, cells.astype(np.float64))
