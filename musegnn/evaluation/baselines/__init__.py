"""Baselines that are trained on the same graphs, each through a library that is kept by others."""
