"""Gram matrices of weighted counts and of dense rows."""

from musegnn.kernels.gram.api import accumulate_dense_gram, accumulate_gram, symmetrize

__all__ = ["accumulate_dense_gram", "accumulate_gram", "symmetrize"]
