"""Products of dense matrices by the faster of the libraries that torch brings."""

from musegnn.kernels.dense.api import Linear, linear, matmul

__all__ = ["Linear", "linear", "matmul"]
