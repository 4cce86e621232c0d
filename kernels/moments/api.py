"""Moments of counts over depth, accumulated block by block.

The derivation is in this folder's README.

Legend: b cells of a block, G genes, K order of the expansion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from musegnn.kernels.validation import Impl, check_array, csr_parts, load_impl

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from musegnn.kernels.validation import Floats

MIN_ORDER = 24
MAX_ORDER = 256
TARGET_ERROR = 1e-16
MIN_HALF_RANGE = 0.01


def chebyshev_order(lowest: float, highest: float) -> int:
    """Return the order K for which what the expansion over a range of depths leaves out is below rounding.

    It is the smallest K of at least 24 with ``rho**-K < 1e-16`` (README, equation 4), at most 256. Depths are above 0.

    Examples
    --------
    >>> chebyshev_order(900, 29_000), chebyshev_order(100, 100_000)
    (28, 46)
    """
    ratio = math.pi / _span(lowest, highest)[1]
    rho = ratio + math.sqrt(ratio * ratio + 1.0)
    return min(MAX_ORDER, max(MIN_ORDER, math.ceil(-math.log(TARGET_ERROR) / math.log(rho))))


def _span(lowest: float, highest: float) -> tuple[float, float]:
    """Return the centre and half the range of log depths."""
    if not 0.0 < lowest <= highest < math.inf:
        msg = f"depths must be positive and finite, got a range from {lowest} to {highest}"
        raise ValueError(msg)
    low, high = math.log(lowest), math.log(highest)
    return 0.5 * (high + low), max(0.5 * (high - low), MIN_HALF_RANGE)


@dataclass(frozen=True, slots=True)
class DepthBasis:
    """Chebyshev polynomials in log depth, and the interpolation through their nodes.

    Attributes
    ----------
    lowest, highest
        Range of depths, both above 0.
    order
        Number of basis functions K.
    """

    lowest: float
    highest: float
    order: int

    def __post_init__(self) -> None:
        _span(self.lowest, self.highest)
        if self.order < 1:
            msg = f"order must be at least 1, got {self.order}"
            raise ValueError(msg)

    @property
    def nodes(self) -> Floats:
        """Depths at the K Chebyshev nodes, descending."""
        centre, half = _span(self.lowest, self.highest)
        result: Floats = np.exp(centre + half * _roots(self.order))
        return result

    def evaluate(self, depth: Floats) -> Floats:
        """Evaluate the polynomials T_0 .. T_{K-1} at the cells' depths (b,) within the range: (b, K) float64."""
        if len(depth) and not (depth.min() >= self.lowest and depth.max() <= self.highest):
            msg = f"depths must be in [{self.lowest}, {self.highest}], got {depth.min()} to {depth.max()}"
            raise ValueError(msg)
        centre, half = _span(self.lowest, self.highest)
        return _polynomials((np.log(depth) - centre) / half, self.order)

    def to_nodes(self, moments: Floats) -> Floats:
        """Turn sums (..., K) against T_r into weights w with ``sum_i x_i f(s_i) = sum_q w_q f(s_q)``, (..., K) float64.

        README, equation 3.
        """
        scale = np.full(self.order, 2.0 / self.order)
        scale[0] = 1.0 / self.order
        table = _polynomials(_roots(self.order), self.order) * scale
        result: Floats = moments @ table.T
        return result


def _roots(order: int) -> Floats:
    result: Floats = np.cos(np.pi * (np.arange(order) + 0.5) / order)
    return result


def _polynomials(t: Floats, order: int) -> Floats:
    result = np.empty((len(t), order))
    result[:, 0] = 1.0
    if order > 1:
        result[:, 1] = t
    for r in range(2, order):
        np.multiply(2.0 * t, result[:, r - 1], out=result[:, r])
        result[:, r] -= result[:, r - 2]
    return result


def accumulate_moments(
    block: csr_matrix,
    basis: Floats,
    m1: Floats,
    m2: Floats | None,
    *,
    impl: Impl = "auto",
) -> None:
    """Add ``sum_i x_ij T_r(s_i)`` and ``sum_i x_ij (x_ij - 1) T_r(s_i)`` of one block, in place.

    The second is the sum with x^2 less the first; most counts of single cells are 1 and add nothing to it. Cells are
    added in their order; results of the implementations agree to rounding.

    Parameters
    ----------
    block
        Counts, CSR, shape (b, G), int32 data.
    basis
        Polynomials at the cells' depths, shape (b, K), float64, C order.
    m1, m2
        Running sums, shape (G, K), float64, C order; without `m2` only the first is added.
    """
    parts = csr_parts(block)
    n_cells, n_genes = block.shape
    order = basis.shape[1] if basis.ndim == 2 else -1
    m2 = np.empty((0, order)) if m2 is None else m2
    check_array("basis", basis, (n_cells, order), np.float64)
    check_array("m1", m1, (n_genes, order), np.float64)
    if len(m2):
        check_array("m2", m2, (n_genes, order), np.float64)
    load_impl("moments", impl).moments(parts, basis, m1, m2)
