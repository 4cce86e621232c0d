"""Implementations of the sums over counts above zero."""
