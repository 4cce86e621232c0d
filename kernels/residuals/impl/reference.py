"""The sums and blocks in plain numpy, dense.

Legend: B cells of a block, G genes, U distinct depths.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

if TYPE_CHECKING:
    from musegnn.kernels.residuals.api import NoiseModel, ResidualSums
    from musegnn.kernels.validation import Block, Floats


def residual(x: Floats, mu: Floats, model: NoiseModel) -> Floats:
    """Compute clipped residuals of broadcastable counts, means and the model's sizes."""
    variance = np.maximum(mu + mu * mu / model.theta, model.min_variance)
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled: Floats = np.clip((x - mu) / np.sqrt(variance), -model.clip, model.clip)
    return scaled


def zero_sums(depth: Floats, cells: Floats, model: NoiseModel, sums: ResidualSums) -> None:
    """Add the sums for counts of zero; depths and cells are (U,)."""
    r_UG = residual(np.zeros(1), depth[:, None] * model.rate, model)
    sums.first[:] += cells @ r_UG
    sums.second[:] += cells @ (r_UG * r_UG)


def accumulate_nonzeros(block: Block, depth: Floats, model: NoiseModel, sums: ResidualSums) -> None:
    """Add the corrections at non-zero counts of a (B, G) block."""
    indptr, indices, data = block
    mu = np.repeat(depth, np.diff(indptr)) * model.rate[indices]
    of_entries = model._replace(theta=model.theta[indices])
    r = residual(data.astype(np.float64), mu, of_entries)
    r_zero = residual(np.zeros(1), mu, of_entries)
    np.add.at(sums.first, indices, r - r_zero)
    np.add.at(sums.second, indices, r * r - r_zero * r_zero)


def dense_residuals(block: Block, depth: Floats, model: NoiseModel) -> Floats:
    """Compute all residuals of a (B, G) block."""
    indptr, indices, data = block
    x_BG = csr_matrix((data, indices, indptr), shape=(len(depth), len(model.rate))).toarray().astype(np.float64)
    return residual(x_BG, depth[:, None] * model.rate, model)
