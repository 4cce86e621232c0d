"""Measurements against baselines: a correctness gate first, then interleaved timings."""
