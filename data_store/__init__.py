"""Files in, store out: readers, validation, and the zarr store with its commit layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from musegnn.data_store.atlas_checks import SourceDataset, check_sources
    from musegnn.data_store.count_source import CountSource
    from musegnn.data_store.readers import ArraySource, FileSource, open_matrix
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
    "FileSource",
    "GeneTable",
    "PackedSource",
    "PairTable",
    "Piece",
    "SourceDataset",
    "Store",
    "build_id",
    "check_sources",
    "label_codes",
    "open_matrix",
    "pack",
    "slug",
    "stratum_labels",
    "validate_counts",
]

_NAMES = {
    "atlas_checks": ("SourceDataset", "check_sources"),
    "count_source": ("CountSource",),
    "readers": ("ArraySource", "FileSource", "open_matrix"),
    "records": ("DatasetRecord", "GeneTable", "PairTable"),
    "split_counts": ("PackedSource", "Piece", "pack"),
    "store": ("Store", "build_id"),
    "strata": ("label_codes", "slug", "stratum_labels"),
    "validate": ("CountSummary", "validate_counts"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import a public name at first use, so that the records come without zarr and HDF5."""
    if name not in _HOME:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
