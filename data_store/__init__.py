"""Files in, store out: readers, validation, and the zarr store with its commit layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from musegnn.data_store.readers import ArraySource, CountSource, H5adSource, open_h5ad
    from musegnn.data_store.records import DatasetRecord, GeneTable, PairTable
    from musegnn.data_store.store import Store, build_id
    from musegnn.data_store.validate import CountSummary, validate_counts

__all__ = [
    "ArraySource",
    "CountSource",
    "CountSummary",
    "DatasetRecord",
    "GeneTable",
    "H5adSource",
    "PairTable",
    "Store",
    "build_id",
    "open_h5ad",
    "validate_counts",
]

_HOME = {
    "ArraySource": "readers",
    "CountSource": "readers",
    "CountSummary": "validate",
    "DatasetRecord": "records",
    "GeneTable": "records",
    "H5adSource": "readers",
    "PairTable": "records",
    "Store": "store",
    "build_id": "store",
    "open_h5ad": "readers",
    "validate_counts": "validate",
}


def __getattr__(name: str) -> object:
    """Import a public name at first use, so that the records come without zarr and HDF5."""
    if name not in _HOME:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
