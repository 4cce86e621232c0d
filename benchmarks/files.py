"""Write synthetic counts to an AnnData file, block by block, so that no size is too large."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h5py
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.synthetic import SyntheticCounts

CHUNK = 1 << 18
BLOCK_ROWS = 16384


def write_h5ad(counts: SyntheticCounts, path: Path) -> None:
    """Write counts as float32 compressed sparse rows, uncompressed, as ``AnnData.write_h5ad`` does by default."""
    with h5py.File(path, "w") as file:
        _mark(file, "anndata", "0.1.0")
        x = file.create_group("X")
        _mark(x, "csr_matrix", "0.1.0")
        x.attrs["shape"] = np.array([counts.n_cells, counts.n_genes])
        data = x.create_dataset("data", (0,), np.float32, maxshape=(None,), chunks=(CHUNK,))
        indices = x.create_dataset("indices", (0,), np.int32, maxshape=(None,), chunks=(CHUNK,))
        indptr = [np.zeros(1, np.int64)]
        for _, block in counts.blocks(BLOCK_ROWS):
            first, last = len(data), len(data) + block.nnz
            data.resize((last,))
            indices.resize((last,))
            data[first:last], indices[first:last] = block.data, block.indices
            indptr.append(first + block.indptr[1:].astype(np.int64))
        x["indptr"] = np.concatenate(indptr)
        _table(file, "obs", [f"c{i}" for i in range(counts.n_cells)])
        _table(file, "var", counts.gene.tolist())


def _table(file: h5py.File, name: str, index: list[str]) -> None:
    group = file.create_group(name)
    _mark(group, "dataframe", "0.2.0")
    group.attrs["_index"] = "_index"
    group.attrs["column-order"] = np.array([], dtype=h5py.string_dtype())
    values = group.create_dataset("_index", data=np.array(index, dtype=object), dtype=h5py.string_dtype())
    _mark(values, "string-array", "0.2.0")


def _mark(item: h5py.HLObject, kind: str, version: str) -> None:
    item.attrs["encoding-type"], item.attrs["encoding-version"] = kind, version
