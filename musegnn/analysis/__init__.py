"""Using the embeddings: export, neighbours, clusters, contrasts, the report page."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from musegnn.analysis.comparison import contrast

_HOMES = {"contrast": "musegnn.analysis.comparison"}

__all__ = ["contrast"]


def __getattr__(name: str) -> object:
    """Import a public name at first use."""
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_HOMES[name]), name)
