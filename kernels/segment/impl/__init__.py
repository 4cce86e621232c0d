"""Implementations of the segment operations."""
