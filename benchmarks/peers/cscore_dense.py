"""CS-CORE with dense cells x genes matrices, as its Python package computes it (restated from the published method).

Weights, residuals and moments are whole matrices; the four sums over cells are general matrix products.

References
----------
Su, Xu, Shan, Cai, Zhao, Zhang (2023), Nature Communications 14:4846.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class DenseResult(NamedTuple):
    """Estimate and z, shape (N, N), and the variances, shape (N,)."""

    estimate: NDArray[np.float64]
    z: NDArray[np.float64]
    sigma: NDArray[np.float64]
    iterations: int


def cscore_dense(x: NDArray[np.float64], depth: NDArray[np.float64]) -> DenseResult:
    """Compute all pairs.

    Parameters
    ----------
    x
        Counts, shape (n, N), float64.
    depth
        Depths, shape (n,), float64.
    """
    s = depth[:, np.newaxis]
    s2 = s**2
    mu = (x * s).sum(axis=0) / s2.sum()
    centred = x - s * mu
    sigma = (s2 * (centred**2 - s * mu)).sum(axis=0) / (s2**2).sum()
    theta = mu**2 / sigma
    delta, iterations = np.inf, 0
    while delta > 0.05 and iterations <= 10:
        median = np.quantile(theta[theta > 0], 0.5)
        theta[theta < 0] = np.inf
        weights = s * mu + s2 * mu**2 / median
        weights[weights <= 0] = 1
        mu = (s * x / weights).sum(axis=0) / (s2 / weights).sum(axis=0)
        centred = x - s * mu
        h = (s * mu + s2 * mu**2 / median) ** 2
        h[h <= 0] = 1
        sigma = (s2 * (centred**2 - s * mu) / h).sum(axis=0) / (s2**2 / h).sum(axis=0)
        previous, theta = theta, mu**2 / sigma
        both = (theta > 0) & (previous > 0)
        delta = np.abs(np.log(theta[both]) - np.log(previous[both])).max()
        iterations += 1
    median = np.quantile(theta[theta > 0], 0.5)
    weights = s * mu + s2 * mu**2 / median
    weights[weights <= 0] = 1
    covariance = (s2 * centred / weights).T @ (centred / weights) / ((s2**2 / weights).T @ (1 / weights))
    variance = s * mu + s2 * sigma
    with np.errstate(invalid="ignore"):  # of genes with a negative variance
        z = (s2 * centred / variance).T @ (centred / variance) / np.sqrt((s2**2 / variance).T @ (1 / variance))
    scale = np.sqrt(np.where(sigma > 0, sigma, np.inf))
    estimate = np.clip(covariance / np.outer(scale, scale), -1, 1)
    np.fill_diagonal(estimate, 1.0)
    return DenseResult(estimate, z, sigma, iterations)
