"""Negative binomial regression of counts on an intercept, with the logarithm of depth as offset."""

from musegnn.kernels.nb_intercept.api import fit_dispersion, fit_intercept

__all__ = ["fit_dispersion", "fit_intercept"]
