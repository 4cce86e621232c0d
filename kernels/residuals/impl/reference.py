"""The sums and blocks in plain numpy, dense.

Legend: B cells of a block, G genes, U distinct depths.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def residual(x: Floats, mu: Floats, theta: Floats, min_variance: float, clip: float) -> Floats:
    """Compute clipped residuals of broadcastable counts, means and sizes."""
    variance = np.maximum(mu + mu * mu / theta, min_variance)
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled: Floats = np.clip((x - mu) / np.sqrt(variance), -clip, clip)
    return scaled


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
    r_UG = residual(np.zeros(1), depth[:, None] * rate, theta, min_variance, clip)
    first += cells @ r_UG
    second += cells @ (r_UG * r_UG)


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
    mu = np.repeat(depth, np.diff(indptr)) * rate[indices]
    r = residual(data.astype(np.float64), mu, theta[indices], min_variance, clip)
    r_zero = residual(np.zeros(1), mu, theta[indices], min_variance, clip)
    np.add.at(first, indices, r - r_zero)
    np.add.at(second, indices, r * r - r_zero * r_zero)


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
    x_BG = csr_matrix((data, indices, indptr), shape=(len(depth), len(rate))).toarray().astype(np.float64)
    return residual(x_BG, depth[:, None] * rate, theta, min_variance, clip)
