"""Using the embeddings: export, neighbours, clusters, contrasts, the report page."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from musegnn.analysis.comparison import contrast
    from musegnn.analysis.gene_lists import list_change, sets_near, shared_factors
    from musegnn.analysis.plots import draw_bubbles, draw_upset, factor_upset, set_bubbles, volcano

_HOMES = {
    "contrast": "musegnn.analysis.comparison",
    "draw_bubbles": "musegnn.analysis.plots",
    "draw_upset": "musegnn.analysis.plots",
    "factor_upset": "musegnn.analysis.plots",
    "list_change": "musegnn.analysis.gene_lists",
    "set_bubbles": "musegnn.analysis.plots",
    "sets_near": "musegnn.analysis.gene_lists",
    "shared_factors": "musegnn.analysis.gene_lists",
    "volcano": "musegnn.analysis.plots",
}

__all__ = [
    "contrast",
    "draw_bubbles",
    "draw_upset",
    "factor_upset",
    "list_change",
    "set_bubbles",
    "sets_near",
    "shared_factors",
    "volcano",
]


def __getattr__(name: str) -> object:
    """Import a public name at first use."""
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_HOMES[name]), name)
