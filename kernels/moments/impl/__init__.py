"""Implementations: numpy and scipy for reading, numba for speed."""
