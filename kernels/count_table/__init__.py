"""How often each count of each gene occurs."""

from musegnn.kernels.count_table.api import SMALL, accumulate_counts

__all__ = ["SMALL", "accumulate_counts"]
