"""Sums of counts against smooth functions of depth."""

from musegnn.kernels.moments.api import DepthBasis, accumulate_moments, chebyshev_order

__all__ = ["DepthBasis", "accumulate_moments", "chebyshev_order"]
