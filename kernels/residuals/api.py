"""Residuals of counts given a rate per gene and a depth per cell.

Legend: B cells of a block, G genes, U distinct depths.

One residual is ``r(x, s) = clip((x - mu) / sqrt(max(mu + mu^2 / theta, min_variance)))`` with ``mu = rate * s``,
clipped to ``[-clip, clip]``. A gene with a NaN rate has NaN residuals; ``theta = inf`` is the Poisson model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from musegnn.kernels.validation import Impl, load_impl

if TYPE_CHECKING:
    from scipy.sparse import csr_array, csr_matrix

    from musegnn.kernels.validation import Floats, Ints


class NoiseModel(NamedTuple):
    """What a residual depends on besides the count and the depth.

    Attributes
    ----------
    rate, theta
        Expected count per unit of depth, and negative binomial size, ``inf`` for Poisson, shape (G,), float64.
    min_variance
        Lower bound of the variance in the denominator.
    clip
        Bound of the absolute residual.
    """

    rate: Floats
    theta: Floats
    min_variance: float
    clip: float


class ResidualSums(NamedTuple):
    """Sums over cells of ``r`` and of ``r^2``, each of shape (G,), float64."""

    first: Floats
    second: Floats


def zero_sums(depth: Floats, cells: Ints, model: NoiseModel, *, impl: Impl = "auto") -> ResidualSums:
    """Sum the residuals that every gene would have if all its counts were zero, in new arrays (G,).

    ``first_j = sum_u cells_u r_j(0, depth_u)``, and `second` with ``r^2``; accumulated in float64 in the order
    of the depths.

    Parameters
    ----------
    depth, cells
        Distinct depths, float64, and number of cells of each, int64, shape (U,).
    """
    _check_model(model)
    if depth.ndim != 1 or depth.shape != cells.shape:
        msg = f"expected depth and cells of one shape (U,), got {depth.shape} and {cells.shape}"
        raise ValueError(msg)
    sums = ResidualSums(np.zeros(len(model.rate)), np.zeros(len(model.rate)))
    load_impl("residuals", impl).zero_sums(_as_floats(depth), _as_floats(cells), model, sums)
    return sums


def zero_residuals(depth: Floats, model: NoiseModel) -> Floats:
    """Compute the residuals of zero counts at depths (U,): (U, G) float64."""
    _check_model(model)
    result: Floats = load_impl("residuals", "reference").residual(np.zeros(1), depth[:, None] * model.rate, model)
    return result


def accumulate_nonzeros(
    block: csr_matrix | csr_array,
    depth: Floats,
    model: NoiseModel,
    sums: ResidualSums,
    *,
    impl: Impl = "auto",
) -> None:
    """Add what the non-zero counts of a block change against :func:`zero_sums` to `sums`, in place.

    ``first_j += sum over non-zeros (r(x, s) - r(0, s))``, and `second` with ``r^2``, in row order, in float64.

    Parameters
    ----------
    block
        Counts, CSR without duplicates, shape (B, G).
    depth
        Depth per cell of the block, shape (B,), float64.
    """
    _check_block(block, depth, model)
    if sums.first.shape != model.rate.shape or sums.second.shape != model.rate.shape:
        msg = f"expected sums of shape {model.rate.shape}, got {sums.first.shape} and {sums.second.shape}"
        raise ValueError(msg)
    parts = (block.indptr, block.indices, block.data)
    load_impl("residuals", impl).accumulate_nonzeros(parts, _as_floats(depth), model, sums)


def dense_residuals(block: csr_matrix | csr_array, depth: Floats, model: NoiseModel, *, impl: Impl = "auto") -> Floats:
    """Compute all residuals of a block: (B, G) float64, C order.

    Parameters
    ----------
    block
        Counts, CSR without duplicates, shape (B, G).
    depth
        Depth per cell of the block, shape (B,), float64.
    """
    _check_block(block, depth, model)
    parts = (block.indptr, block.indices, block.data)
    result: Floats = load_impl("residuals", impl).dense_residuals(parts, _as_floats(depth), model)
    return result


def _as_floats(values: Floats | Ints) -> Floats:
    return np.ascontiguousarray(values, np.float64)


def _check_model(model: NoiseModel) -> None:
    if model.rate.ndim != 1 or model.rate.shape != model.theta.shape:
        msg = f"expected rate and theta of one shape (G,), got {model.rate.shape} and {model.theta.shape}"
        raise ValueError(msg)
    if not (model.min_variance >= 0 and model.clip > 0):
        msg = f"expected min_variance >= 0 and clip > 0, got {model.min_variance} and {model.clip}"
        raise ValueError(msg)


def _check_block(block: csr_matrix | csr_array, depth: Floats, model: NoiseModel) -> None:
    _check_model(model)
    expected = (len(depth), len(model.rate))
    if block.format != "csr" or block.shape != expected:
        msg = f"expected a CSR block of shape {expected}, got {block.format} of shape {block.shape}"
        raise ValueError(msg)
