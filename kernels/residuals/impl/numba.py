"""The sums and blocks as compiled loops that hold no lock.

Legend: B cells of a block, G genes, U distinct depths.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numba
import numpy as np

if TYPE_CHECKING:
    from musegnn.kernels.residuals.api import NoiseModel, ResidualSums
    from musegnn.kernels.validation import Block, Floats


@numba.njit(nogil=True, cache=True, inline="always", error_model="numpy")
def residual(x: float, mu: float, theta: float, min_variance: float, clip: float) -> float:
    """Compute the residual of one count."""
    variance = mu + mu * mu / theta
    if variance < min_variance:
        variance = min_variance
    r = (x - mu) / math.sqrt(variance)
    if r > clip:
        r = clip
    elif r < -clip:
        r = -clip
    return r


@numba.njit(nogil=True, cache=True, error_model="numpy")
def zero_sums(depth: Floats, cells: Floats, model: NoiseModel, sums: ResidualSums) -> None:
    """Add the sums for counts of zero; depths and cells are (U,)."""
    rate, theta, min_variance, clip = model
    first, second = sums
    for u in range(depth.shape[0]):
        for j in range(rate.shape[0]):
            r = residual(0.0, rate[j] * depth[u], theta[j], min_variance, clip)
            first[j] += cells[u] * r
            second[j] += cells[u] * (r * r)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def accumulate_nonzeros(block: Block, depth: Floats, model: NoiseModel, sums: ResidualSums) -> None:
    """Add the corrections at non-zero counts of a (B, G) block."""
    indptr, indices, data = block
    rate, theta, min_variance, clip = model
    first, second = sums
    for i in range(depth.shape[0]):
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            mu = rate[j] * depth[i]
            r = residual(float(data[e]), mu, theta[j], min_variance, clip)
            r_zero = residual(0.0, mu, theta[j], min_variance, clip)
            first[j] += r - r_zero
            second[j] += r * r - r_zero * r_zero


@numba.njit(nogil=True, cache=True, error_model="numpy")
def dense_residuals(block: Block, depth: Floats, model: NoiseModel) -> Floats:
    """Compute all residuals of a (B, G) block."""
    indptr, indices, data = block
    rate, theta, min_variance, clip = model
    n_genes = rate.shape[0]
    r_BG = np.empty((depth.shape[0], n_genes))
    for i in range(depth.shape[0]):
        for j in range(n_genes):
            r_BG[i, j] = residual(0.0, rate[j] * depth[i], theta[j], min_variance, clip)
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            r_BG[i, j] = residual(float(data[e]), rate[j] * depth[i], theta[j], min_variance, clip)
    return r_BG
