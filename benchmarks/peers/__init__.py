"""Rivals, as their authors compute it."""
