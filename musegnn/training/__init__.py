"""Losses, rounds, hold-outs and checkpoints."""
