"""Implementations of edge attention."""

HANDOFF_BYTES = 1 << 21
"""What the CPU's backward pass keeps per edge and head, of as many heads at a time as fit, at least of one."""
