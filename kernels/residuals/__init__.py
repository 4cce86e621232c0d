"""Pearson residuals of a regularised negative binomial model: dense blocks and streamed sums."""

from musegnn.kernels.residuals.api import (
    NoiseModel,
    ResidualSums,
    accumulate_nonzeros,
    dense_residuals,
    zero_residuals,
    zero_sums,
)

__all__ = ["NoiseModel", "ResidualSums", "accumulate_nonzeros", "dense_residuals", "zero_residuals", "zero_sums"]
