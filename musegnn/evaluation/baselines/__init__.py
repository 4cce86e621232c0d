"""Baselines: simple vectors without training, and published methods trained on the same graphs."""
