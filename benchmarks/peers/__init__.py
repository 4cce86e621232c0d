"""Baselines, as their authors compute it."""
