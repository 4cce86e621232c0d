"""Negative binomial regression of counts on an intercept, with the logarithm of depth as offset."""

from musegnn.kernels.nb_intercept.api import (
    DepthSums,
    fit_dispersion,
    fit_dispersion_from_sums,
    fit_intercept,
    fit_intercept_from_sums,
)

__all__ = ["DepthSums", "fit_dispersion", "fit_dispersion_from_sums", "fit_intercept", "fit_intercept_from_sums"]
