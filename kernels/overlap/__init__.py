"""Overlaps of neighbourhoods as sparse bitset products."""

from musegnn.kernels.overlap.api import NeighbourSets, jaccard

__all__ = ["NeighbourSets", "jaccard"]
