"""Measurements against rivals: a correctness gate first, then interleaved timings."""
