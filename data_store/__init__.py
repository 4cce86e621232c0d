"""Files in, store out: readers, validation, and the zarr store with its commit layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from musegnn.data_store.atlas_checks import SourceDataset, check_sources
    from musegnn.data_store.readers import ArraySource, CountSource, H5adSource, open_h5ad
    from musegnn.data_store.records import DatasetRecord, GeneTable, PairTable
    from musegnn.data_store.split_counts import PackedSource, Piece, pack
    from musegnn.data_store.store import Store, build_id
    from musegnn.data_store.strata import label_codes, slug, stratum_labels
    from musegnn.data_store.validate import CountSummary, validate_counts

__all__ = [
    "ArraySource",
    "CountSource",
    "CountSummary",
    "DatasetRecord",
    "GeneTable",
    "H5adSource",
    "PackedSource",
    "PairTable",
    "Piece",
    "SourceDataset",
    "Store",
    "build_id",
    "check_sources",
    "label_codes",
    "open_h5ad",
    "pack",
    "slug",
    "stratum_labels",
    "validate_counts",
]

_HOME = {
    "ArraySource": "readers",
    "CountSource": "readers",
    "CountSummary": "validate",
    "DatasetRecord": "records",
    "GeneTable": "records",
    "H5adSource": "readers",
    "SourceDataset": "atlas_checks",
    "PackedSource": "split_counts",
    "PairTable": "records",
    "Piece": "split_counts",
    "Store": "store",
    "build_id": "store",
    "check_sources": "atlas_checks",
    "label_codes": "strata",
    "open_h5ad": "readers",
    "pack": "split_counts",
    "slug": "strata",
    "stratum_labels": "strata",
    "validate_counts": "validate",
}


def __getattr__(name: str) -> object:
    """Import a public name at first use, so that the records come without zarr and HDF5."""
    if name not in _HOME:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
