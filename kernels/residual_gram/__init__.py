"""Gram matrix of residuals, at the cost of the counts above zero."""

from musegnn.kernels.residual_gram.api import ResidualGram

__all__ = ["ResidualGram"]
