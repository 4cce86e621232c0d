"""The arrays of a dataset on disk: names, types, chunks, and the conditions on a record.

Legend: G genes, P stored pair entries, R profile columns, W bytes of the longest name.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.data_store.records import DatasetRecord

FORMAT = "musegnn-store"
VERSION = 1
ENCODING = "musegnn-dataset"
ENCODING_VERSION = "1.1"
WITHOUT_CERTAINTY = "1.0"
MANIFEST = "MANIFEST.json"
ATTRIBUTES = "musegnn"

NAMES = ("gene", "gene_id")
GENE_ARRAYS = {
    "mean": "<f8", "variance": "<f8", "n_cells": "<i8", "mu": "<f8", "sigma": "<f8", "score": "<f8",
}  # fmt: skip
CERTAINTY = "genes/certainty"  # float32, from version 1.1 on
PAIR_ARRAYS = {"indptr": "<i8", "indices": "<i4", "z": "<f4", "estimate": "<f4", "histogram": "<i8"}

CHUNK = 2**16
SHARD = 2**22
PROFILE_CHUNK = (64, 16384)
PROFILE_SHARD_ROWS = 1024


def arrays_of(record: DatasetRecord) -> dict[str, NDArray[Any]]:
    """List the arrays of a record by their path in the store, little-endian."""
    arrays: dict[str, NDArray[Any]] = {f"genes/{name}": pack_names(getattr(record.genes, name)) for name in NAMES}
    for name, dtype in GENE_ARRAYS.items():
        arrays[f"genes/{name}"] = np.asarray(getattr(record.genes, name), dtype=dtype)
    if record.genes.certainty is not None:
        arrays[CERTAINTY] = np.asarray(record.genes.certainty, dtype="<f4")
    for name, dtype in PAIR_ARRAYS.items():
        arrays[f"graph/{name}"] = np.asarray(getattr(record.pairs, name), dtype=dtype)
    arrays["profile/X"] = np.asarray(record.profile, dtype="<f4")
    return arrays


def attributes_of(record: DatasetRecord) -> dict[str, Any]:  # JSON
    """Return what a catalogue shows of a record without reading arrays."""
    return {
        "encoding-type": ENCODING,
        "encoding-version": WITHOUT_CERTAINTY if record.genes.certainty is None else ENCODING_VERSION,
        "name": record.name,
        "modality": record.modality,
        "tissue": record.tissue,
        "species": record.species,
        "condition": record.condition,
        "n_cells": int(record.n_cells),
        "n_genes": len(record.genes),
        "n_pair_entries": len(record.pairs.indices),
        "n_tests": int(record.pairs.n_tests),
        "z_store": float(record.pairs.z_store),
        "profile_columns": int(record.profile.shape[1]),
    }


def chunks_of(path: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the inner chunk of an array, 0.1 to 4 MiB, and its shard, a multiple of it of at most 64 MiB."""
    if path == "profile/X":
        chunk: tuple[int, ...] = tuple(max(1, min(n, limit)) for n, limit in zip(shape, PROFILE_CHUNK, strict=True))
        rows = chunk[0] * min(math.ceil(shape[0] / chunk[0]) or 1, PROFILE_SHARD_ROWS // PROFILE_CHUNK[0])
        return chunk, (rows, chunk[1])
    if path in {"graph/indptr", "graph/histogram"} or len(shape) == 2:
        whole = tuple(max(1, n) for n in shape)
        return whole, whole
    chunk = (max(1, min(shape[0], CHUNK)),)
    return chunk, (chunk[0] * min(math.ceil(shape[0] / chunk[0]) or 1, SHARD // CHUNK),)


def shard_keys(path: str, shape: tuple[int, ...], shard: tuple[int, ...]) -> set[str]:
    """Return every key that an array of this shape must have."""
    grid = [range(math.ceil(n / s)) for n, s in zip(shape, shard, strict=True)]
    keys: list[str] = [f"{path}/c"]
    for axis in grid:
        keys = [f"{key}/{i}" for key in keys for i in axis]
    return {f"{path}/zarr.json", *keys}


def pack_names(names: NDArray[np.str_]) -> NDArray[np.uint8]:
    """Encode names as UTF-8 of one width, padded with NUL, shape (G, W), uint8."""
    raw = [str(name).encode() for name in names]
    if any(b"\0" in name for name in raw):
        msg = "a gene name holds a NUL character"
        raise ValueError(msg)
    width = max(map(len, raw), default=1)
    return np.frombuffer(b"".join(name.ljust(width, b"\0") for name in raw), dtype=np.uint8).reshape(-1, width)


def unpack_names(packed: NDArray[np.uint8]) -> NDArray[np.str_]:
    """Decode what :func:`pack_names` made."""
    return np.array([bytes(row).rstrip(b"\0").decode() for row in packed], dtype=np.str_)


def check_record(record: DatasetRecord) -> None:
    """Raise ``ValueError`` where a record is not what :class:`DatasetRecord` promises."""
    genes, pairs = record.genes, record.pairs
    G, P = len(genes), len(pairs.indices)
    _require(G > 0, "genes is empty, expected at least one gene")
    expected = {f"genes.{name}": (getattr(genes, name).shape, (G,)) for name in (*NAMES, *GENE_ARRAYS)}
    expected["pairs.indptr"] = (pairs.indptr.shape, (G + 1,))
    expected.update({f"pairs.{name}": (getattr(pairs, name).shape, (P,)) for name in ("indices", "z", "estimate")})
    expected["profile"] = (record.profile.shape, (G, *record.profile.shape[1:2]))
    for name, (got, want) in expected.items():
        _require(got == want, f"{name} has shape {got}, expected {want}")
    _require(record.profile.ndim == 2, f"profile has {record.profile.ndim} dimensions, expected 2")
    _require(pairs.histogram.ndim == 1, f"pairs.histogram has {pairs.histogram.ndim} dimensions, expected 1")
    _require(len(set(genes.gene.tolist())) == G, "genes.gene holds repeated names, expected unique names")
    _require(all(name != "" for name in genes.gene.tolist()), "genes.gene holds an empty name")
    if genes.certainty is not None:
        _require(genes.certainty.shape == (G,), f"genes.certainty has shape {genes.certainty.shape}, expected {(G,)}")
        inside = bool(((genes.certainty >= 0) & (genes.certainty <= 1)).all())
        _require(inside, "genes.certainty holds values outside [0, 1]")
    for name in ("z", "estimate"):
        _require(bool(np.isfinite(getattr(pairs, name)).all()), f"pairs.{name} holds NaN or infinite values")
    _require(bool(np.isfinite(record.profile).all()), "profile holds NaN or infinite values")
    _check_csr(pairs.indptr, pairs.indices, G)


def _check_csr(indptr: NDArray[np.int64], indices: NDArray[np.int32], G: int) -> None:
    pointers = indptr.astype(np.int64)
    sound = pointers[0] == 0 and pointers[-1] == len(indices) and bool((np.diff(pointers) >= 0).all())
    _require(sound, "pairs.indptr does not start at 0, rise, and end at the number of entries")
    if len(indices) == 0:
        return
    _require(int(indices.min()) >= 0 and int(indices.max()) < G, f"pairs.indices reach outside 0..{G - 1}")
    rows = np.repeat(np.arange(G, dtype=np.int64), np.diff(pointers))
    keys = rows * G + indices
    _require(bool((np.diff(keys) > 0).all()), "pairs.indices do not ascend within each row")
    _require(not bool((rows == indices).any()), "pairs hold a gene with itself")
    mirrored = np.sort(indices.astype(np.int64) * G + rows)
    _require(bool(np.array_equal(mirrored, keys)), "pairs are not symmetric")


def _require(claim: bool, message: str) -> None:  # noqa: FBT001  a check takes what it checks
    if not claim:
        raise ValueError(message)
