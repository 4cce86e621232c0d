"""Some cells and genes of a block of counts."""

from musegnn.kernels.subset.api import subset

__all__ = ["subset"]
