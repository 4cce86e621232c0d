"""The definition with dense matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from musegnn.kernels.residuals import dense_residuals

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from musegnn.kernels.residuals import NoiseModel


def add(
    block: csr_matrix,
    depth: NDArray[np.float64],
    model: NoiseModel,
    cross: NDArray[np.float64],
    total: NDArray[np.float64],
) -> None:
    """Add S to `cross` (N, W) and the sums of D to `total` (N,)."""
    zeros = dense_residuals(block * 0, depth, model, impl="reference")
    change = dense_residuals(block, depth, model, impl="reference") - zeros
    cross[:, : change.shape[1]] += change.T @ (zeros + 0.5 * change)
    total += change.sum(axis=0)
