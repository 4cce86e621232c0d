"""Implementations of edge attention."""
