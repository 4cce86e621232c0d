"""The sums and blocks as compiled loops that hold no lock.

Legend: B cells of a block, G genes, U distinct depths.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numba
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


@numba.njit(nogil=True, cache=True, inline="always")
def _residual(x: float, mu: float, theta: float, min_variance: float, clip: float) -> float:
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
def zero_sums(
    depth: Floats,
    cells: Floats,
    rate: Floats,
    theta: Floats,
    min_variance: float,
    clip: float,
    first: Floats,
    second: Floats,
) -> None:
    """Add the sums for counts of zero, arrays (U,), (U,), (G,), (G,), -, -, (G,), (G,)."""
    for u in range(depth.shape[0]):
        for j in range(rate.shape[0]):
            r = _residual(0.0, rate[j] * depth[u], theta[j], min_variance, clip)
            first[j] += cells[u] * r
            second[j] += cells[u] * (r * r)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def accumulate_nonzeros(
    indptr: NDArray[np.integer],
    indices: NDArray[np.integer],
    data: NDArray[np.number],
    depth: Floats,
    rate: Floats,
    theta: Floats,
    min_variance: float,
    clip: float,
    first: Floats,
    second: Floats,
) -> None:
    """Add the corrections at non-zero counts of a (B, G) block."""
    for i in range(depth.shape[0]):
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            mu = rate[j] * depth[i]
            r = _residual(float(data[e]), mu, theta[j], min_variance, clip)
            r_zero = _residual(0.0, mu, theta[j], min_variance, clip)
            first[j] += r - r_zero
            second[j] += r * r - r_zero * r_zero


@numba.njit(nogil=True, cache=True, error_model="numpy")
def dense_residuals(
    indptr: NDArray[np.integer],
    indices: NDArray[np.integer],
    data: NDArray[np.number],
    depth: Floats,
    rate: Floats,
    theta: Floats,
    min_variance: float,
    clip: float,
) -> Floats:
    """Compute all residuals of a (B, G) block."""
    n_genes = rate.shape[0]
    r_BG = np.empty((depth.shape[0], n_genes))
    for i in range(depth.shape[0]):
        for j in range(n_genes):
            r_BG[i, j] = _residual(0.0, rate[j] * depth[i], theta[j], min_variance, clip)
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            r_BG[i, j] = _residual(float(data[e]), rate[j] * depth[i], theta[j], min_variance, clip)
    return r_BG
