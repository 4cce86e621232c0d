"""Implementations of counting counts."""
