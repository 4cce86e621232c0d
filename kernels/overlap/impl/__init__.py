"""Implementations of the overlap of neighbourhoods."""
