"""Implementations; `reference` is the specification, `numba` the fast one."""
