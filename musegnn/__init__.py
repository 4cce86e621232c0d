"""Joint gene embeddings from many single-cell and spatial datasets.

>>> import musegnn as mg
>>> mg.__version__
'0.1.0'

Everything heavy is imported at first use: ``import musegnn`` alone loads the standard library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from musegnn.api import MuSeGNN
    from musegnn.atlas_file import atlas, load_atlas
    from musegnn.coexpression.on_anndata import cscore, sctransform, sparkx
    from musegnn.config import AtlasConfig
    from musegnn.data_store import Store
    from musegnn.errors import ConfigError, InputError, MuseGNNError
    from musegnn.pipeline import add, build_graphs, run

__version__ = "0.1.0"

_HOMES = {
    "AtlasConfig": "musegnn.config",
    "ConfigError": "musegnn.errors",
    "InputError": "musegnn.errors",
    "MuSeGNN": "musegnn.api",
    "MuseGNNError": "musegnn.errors",
    "Store": "musegnn.data_store",
    "add": "musegnn.pipeline",
    "atlas": "musegnn.atlas_file",
    "build_graphs": "musegnn.pipeline",
    "cscore": "musegnn.coexpression.on_anndata",
    "load_atlas": "musegnn.atlas_file",
    "run": "musegnn.pipeline",
    "sctransform": "musegnn.coexpression.on_anndata",
    "sparkx": "musegnn.coexpression.on_anndata",
}

__all__ = [
    "AtlasConfig",
    "ConfigError",
    "InputError",
    "MuSeGNN",
    "MuseGNNError",
    "Store",
    "add",
    "atlas",
    "build_graphs",
    "cscore",
    "load_atlas",
    "run",
    "sctransform",
    "sparkx",
]


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


def __getattr__(name: str) -> Any:  # the type depends on the name; TYPE_CHECKING imports above give it
    if name not in _HOMES:
        msg = f"module 'musegnn' has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
