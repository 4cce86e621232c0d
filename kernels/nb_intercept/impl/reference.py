"""One gene at a time with scipy's optimisers, from the textbook likelihood.

Legend: C cells, E non-zeros, G genes, U distinct depths.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.special import gammaln

if TYPE_CHECKING:
    from collections.abc import Iterator

    from musegnn.kernels.nb_intercept.api import Problem
    from musegnn.kernels.validation import Floats


def fit_intercept(problem: Problem, dispersion: Floats, start: Floats) -> Floats:
    """Find the root of the score of each gene in [-30, 30]."""
    result = np.empty(len(start))
    for j, x, s, weight in _genes(problem):
        d = dispersion[j]

        def score(b: float, x: Floats = x, s: Floats = s, weight: Floats = weight, d: float = d) -> float:
            mu = np.exp(b) * s
            return float(np.sum(weight * (x - mu) / (1 + d * mu)))

        result[j] = brentq(score, -30.0, 30.0, xtol=1e-13, rtol=1e-15)
    return result


def fit_dispersion(problem: Problem, tails: object, rate: Floats, start: Floats, cox_reid: float) -> Floats:
    """Maximise the likelihood of each gene within a factor of 1e4 of a grid's best value."""
    del tails
    result = np.empty(len(start))
    grid = np.linspace(np.log(1e-8), np.log(1e16), 120)
    for j, x, s, weight in _genes(problem):
        mu = rate[j] * s

        def loss(log_d: float, x: Floats = x, mu: Floats = mu, weight: Floats = weight) -> float:
            d = np.exp(log_d)
            terms = gammaln(x + 1 / d) - gammaln(1 / d) - (x + 1 / d) * np.log1p(mu * d) + x * log_d
            return -float(np.sum(weight * terms) - cox_reid / 2 * np.log(np.sum(weight / (1 / mu + d))))

        values = [loss(g) for g in grid]
        best = int(np.argmin(values))
        if best == 0:
            result[j] = 0.0
            continue
        bounds = (grid[best - 1], grid[min(best + 1, len(grid) - 1)])
        result[j] = np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-10}).x)
    return result


def _genes(problem: Problem) -> Iterator[tuple[int, Floats, Floats, Floats]]:
    """Yield per gene the counts, depths and weights of its non-zeros followed by its zeros per depth level."""
    indptr, data, depth, levels, cells = problem
    for j in range(len(indptr) - 1):
        x = data[indptr[j] : indptr[j + 1]].astype(np.float64)
        s = depth[indptr[j] : indptr[j + 1]]
        zeros = cells - np.bincount(np.searchsorted(levels, s), minlength=len(levels))
        yield (
            j,
            np.concatenate([x, np.zeros(len(levels))]),
            np.concatenate([s, levels]),
            np.concatenate([np.ones(len(x)), zeros]),
        )
