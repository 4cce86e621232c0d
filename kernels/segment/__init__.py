"""Sums and softmax over the edges of each row of a CSR graph."""

from musegnn.kernels.segment.api import segment_softmax, segment_sum

__all__ = ["segment_softmax", "segment_sum"]
