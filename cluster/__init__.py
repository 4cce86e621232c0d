"""Engines that spread work over threads, processes and machines."""
