"""Gram matrices of weighted counts and of dense rows."""

from musegnn.kernels.gram.api import WeightedGram, accumulate_dense_gram, scattered_genes, symmetrize

__all__ = ["WeightedGram", "accumulate_dense_gram", "scattered_genes", "symmetrize"]
