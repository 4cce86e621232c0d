"""Write a record as zarr v3 arrays into durable files, and read it back.

Every chunk carries a CRC-32C, every shard index too, and every chunk of every array is stored, zeros included: an
absent chunk can then never stand for zeros.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import LocalStore, MemoryStore

from musegnn.data_store.atomic_files import replace_file, sync_folders
from musegnn.data_store.commit import REBUILD, Manifest, canonical_json, digest, foreign_files, read_file
from musegnn.data_store.layout import (
    ATTRIBUTES,
    CERTAINTY,
    ENCODING,
    GENE_ARRAYS,
    MANIFEST,
    NAMES,
    PAIR_ARRAYS,
    arrays_of,
    attributes_of,
    chunks_of,
    shard_keys,
    unpack_names,
)
from musegnn.data_store.records import DatasetRecord, GeneTable, PairTable
from musegnn.errors import StoreError
from musegnn.text import one_line

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from zarr.core.buffer import Buffer

GROUPS = ("genes", "graph", "profile")
PROVENANCE = "provenance.json"
REPORT = "report.json"


class _BuildFiles(MutableMapping[str, "Buffer"]):
    """The files of one build, as the mapping that zarr writes into.

    It starts empty whatever lies on disk, so that a half-written build of an earlier process is written over with the
    same bytes. Only metadata can be read back.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.root = root
        self.folder = folder
        self.files: dict[str, tuple[int, str]] = {}
        self._metadata: dict[str, Buffer] = {}

    def put(self, key: str, data: bytes) -> None:
        replace_file(self.root, self.folder / key, data)
        self.files[key] = (len(data), digest(data))

    def __setitem__(self, key: str, value: Buffer) -> None:
        self.put(key, value.to_bytes())
        if key.endswith("zarr.json"):
            self._metadata[key] = value

    def __getitem__(self, key: str) -> Buffer:
        return self._metadata[key]

    def __delitem__(self, key: str) -> None:
        msg = f"a build is written once, {key} cannot be removed"
        raise TypeError(msg)

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)


def write_build(root: Path, folder: Path, record: DatasetRecord) -> bytes:
    """Write a record below `folder`, durably, the manifest last.

    Half-written files of an earlier try are replaced, any other file is removed.

    Parameters
    ----------
    root
        Root of the store.
    folder
        Folder of the build.
    record
        Dataset to write, already checked.

    Returns
    -------
    bytes
        Content of the manifest.

    Raises
    ------
    WriteError
        E140 or E292 when it cannot be written; the same call completes it later.
    """
    texts = {PROVENANCE: canonical_json(record.provenance), REPORT: canonical_json(record.report)}
    files = _BuildFiles(root, folder)
    store = MemoryStore(files)
    group = zarr.create_group(store=store, attributes={ATTRIBUTES: attributes_of(record)}, zarr_format=3)
    for name in GROUPS:
        group.create_group(name)
    expected = {"zarr.json", *(f"{name}/zarr.json" for name in GROUPS)}
    for path, values in arrays_of(record).items():
        chunk, shard = chunks_of(path, values.shape)
        array = group.create_array(
            path,
            shape=values.shape,
            dtype=values.dtype,
            chunks=chunk,
            shards=shard,
            compressors=[BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"), Crc32cCodec()],
            fill_value=0,
            attributes={"encoding": "utf-8, padded with NUL"} if path.rpartition("/")[2] in NAMES else {},
            config={"write_empty_chunks": True},
        )
        if values.size:
            array[...] = values
        expected |= shard_keys(path, values.shape, shard)
    if set(files.files) != expected:
        msg = f"zarr wrote other keys than expected: {sorted(set(files.files) ^ expected)[:4]}"
        raise StoreError(msg, code="E134", where=str(folder), fix="report this with the version of zarr")
    for key, text in texts.items():
        files.put(key, text)
    manifest = Manifest(files=files.files).to_json()
    files.put(MANIFEST, manifest)
    for file in foreign_files(folder, Manifest(files=files.files)):
        file.unlink()
    sync_folders(root, {(folder / key).parent for key in files.files})
    return manifest


def read_attributes(folder: Path, manifest: Manifest) -> dict[str, Any]:  # JSON
    """Return the catalogue entry of a build: E131 when it is damaged, E290 when a newer program wrote it."""
    raw = read_file(folder, manifest, "zarr.json")
    try:
        attributes = json.loads(raw)["attributes"][ATTRIBUTES]
        kind, version = attributes["encoding-type"], str(attributes["encoding-version"])
    except (ValueError, KeyError, TypeError):
        msg = "zarr.json is no catalogue entry"
        raise StoreError(msg, code="E131", where=str(folder), fix=REBUILD) from None
    if kind != ENCODING or not version.startswith("1."):
        msg = f"the build is {kind} {version}, this program reads {ENCODING} 1"
        raise StoreError(msg, code="E290", where=str(folder), fix="use a newer musegnn")
    result: dict[str, Any] = attributes
    return result


def read_build(folder: Path, manifest: Manifest) -> DatasetRecord:
    """Read a record whose files were checked against `manifest`.

    An array that lacks chunks is E132, one that cannot be decoded E131.
    """
    about = read_attributes(folder, manifest)
    group = zarr.open_group(LocalStore(folder, read_only=True), mode="r", zarr_format=3, use_consolidated=False)

    def load(path: str, dtype: str) -> NDArray[Any]:
        return _load(group, path, dtype, folder, manifest)

    columns: dict[str, NDArray[Any]] = {name: unpack_names(load(f"genes/{name}", "|u1")) for name in NAMES}
    columns |= {name: load(f"genes/{name}", dtype) for name, dtype in GENE_ARRAYS.items()}
    if f"{CERTAINTY}/zarr.json" in manifest.files:
        columns["certainty"] = load(CERTAINTY, "<f4")
    genes = GeneTable(**columns)
    pairs = PairTable(
        **{name: load(f"graph/{name}", dtype) for name, dtype in PAIR_ARRAYS.items()},
        n_tests=about["n_tests"],
        z_store=about["z_store"],
    )
    labels = ("name", "modality", "tissue", "species", "condition", "n_cells")
    return DatasetRecord(
        **{name: about[name] for name in labels},
        genes=genes,
        pairs=pairs,
        profile=load("profile/X", "<f4"),
        report=json.loads(read_file(folder, manifest, REPORT)),
        provenance=json.loads(read_file(folder, manifest, PROVENANCE)),
    )


def _load(group: zarr.Group, path: str, dtype: str, folder: Path, manifest: Manifest) -> NDArray[Any]:
    try:
        array = group[path]
    except KeyError:
        array = None
    if not isinstance(array, zarr.Array) or array.dtype != np.dtype(dtype) or array.shards is None:
        msg = f"{path} is missing or not an array of {dtype}"
        raise StoreError(msg, code="E131", where=str(folder), fix=REBUILD)
    absent = shard_keys(path, array.shape, array.shards) - manifest.files.keys()
    if absent:
        msg = f"{path} lacks {len(absent)} chunks (first: {min(absent)})"
        raise StoreError(msg, code="E132", where=str(folder), fix=REBUILD)
    try:
        values = np.asarray(array[...])
    except (ValueError, RuntimeError, OSError) as error:
        msg = f"{path} cannot be decoded ({one_line(error, 80)})"
        raise StoreError(msg, code="E131", where=str(folder), fix=REBUILD) from error
    return values
