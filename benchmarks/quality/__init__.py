"""Comparison of models on real tissues: data, models and page of ``python -m benchmarks quality``."""
