"""Sums of counts against smooth functions of depth."""

from musegnn.kernels.moments.api import DepthBasis, accumulate_gene_sums, accumulate_moments, chebyshev_order

__all__ = ["DepthBasis", "accumulate_gene_sums", "accumulate_moments", "chebyshev_order"]
