"""Metrics, baselines and the evaluation table."""
