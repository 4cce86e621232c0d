"""The definition with dense matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from musegnn.kernels.residuals.impl.reference import dense_residuals

if TYPE_CHECKING:
    from musegnn.kernels.residuals import NoiseModel
    from musegnn.kernels.validation import Block, Floats


def add(block: Block, depth: Floats, model: NoiseModel, cross: Floats, total: Floats) -> None:
    """Add S to `cross` (N, W) and the sums of D to `total` (N,)."""
    indptr, indices, data = block
    zeros = dense_residuals((indptr, indices, data * 0), depth, model)
    change = dense_residuals(block, depth, model) - zeros
    cross[:, : change.shape[1]] += change.T @ (zeros + 0.5 * change)
    total += change.sum(axis=0)
