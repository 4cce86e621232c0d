"""Simulated rounds of training on many GPUs: the simulation, assumed times of GPUs, and the report."""
