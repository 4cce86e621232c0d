"""Implementations of taking some cells and genes."""
