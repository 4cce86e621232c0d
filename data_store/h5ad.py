"""Read AnnData files with HDF5 alone: structure is checked at open, counts are streamed by rows.

No array of the matrix is read whole but the row pointers, at open.

Legend: C cells, G genes of the file, d spatial dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import scipy.sparse as sp

from musegnn.data_store.blocks import windows
from musegnn.data_store.hdf5 import get_node, open_file, read_index, read_strings
from musegnn.data_store.names import looks_transposed
from musegnn.data_store.spatial import read_coords, tissue_mask
from musegnn.data_store.validate import FROM_ANNDATA, MAX_COUNT, check_pointers, check_structure, raise_malformed
from musegnn.errors import InputError
from musegnn.text import short_path, shorten
from musegnn.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

DENSE_SLICE_BYTES = 64 * 2**20
MAX_CSC_BYTES = 8 * 2**30
PREFERRED_LAYERS = ("counts", "raw_counts", "raw", "spliced")
SAMPLE = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class H5adLayout:
    """Place of the counts of a file, and its names.

    Attributes
    ----------
    key, kind
        Matrix in the file, and ``csr``, ``csc`` or ``dense``.
    n_entries
        Stored entries of the cells read, in all columns; ``None`` for ``dense``.
    id_keys
        Other columns of ``var`` with unique values.
    used_cells, used_genes
        Cells to read as a mask, and columns to read as indices; ``None``: all.
    coords
        Coordinates of the cells read, shape (n_used, d), or ``None``.
    stamp
        Size and modification time of the file.
    """

    path: Path
    key: str
    kind: str
    shape: tuple[int, int]
    n_entries: int | None
    names: list[str]
    ids: list[str]
    id_keys: list[str]
    used_cells: NDArray[np.bool_] | None
    used_genes: NDArray[np.int64] | None
    coords: NDArray[np.float64] | None
    stamp: tuple[int, int]
    warnings: list[str] = field(default_factory=list)

    @property
    def n_used(self) -> int:
        """Number of cells that are read."""
        return self.shape[0] if self.used_cells is None else int(self.used_cells.sum())


def inspect(path: Path, *, layer: str | None, gene_id_key: str | None, spatial_key: str | None) -> H5adLayout:
    """Check the structure of a file and read its names; an error for all but counts of cells x genes."""
    where = short_path(path)
    with open_file(path) as file:
        stat = path.stat()
        _require_anndata(file, where)
        cells = read_index(file, "obs", where)
        key, var = _matrix_key(file, layer, where)
        names = read_index(file, var, where)
        if looks_transposed(names, cells):
            msg = f"{len(cells)} rows look like genes and {len(names)} columns like cells"
            raise InputError(msg, code="E216", where=where, fix="write the transpose, adata.T, to a file")
        ids, id_keys = _identifiers(file[var], names, gene_id_key, where)
        kind, shape, indptr = _matrix(file, key, where)
        if shape != (len(cells), len(names)):
            msg = f"{key} has shape {shape}, but there are {len(cells)} cell names and {len(names)} gene names"
            raise_malformed(msg, where)
        warnings = []
        if kind == "csc":
            warnings.append(f"W226: {key} is stored by columns and has to be turned into rows, which takes longer")
        names = [name or gene_id for name, gene_id in zip(names, ids, strict=True)]
        used_genes = _used_genes(file[var], names, where, warnings)
        coords = used_cells = None
        if spatial_key is not None:
            used_cells = tissue_mask(file, len(cells), where, warnings)
            coords = read_coords(file, spatial_key, len(cells), used_cells, where)
        n_entries = None if kind == "dense" else int(file[key]["indices"].shape[0])
        if indptr is not None and used_cells is not None:
            n_entries = int(np.diff(indptr)[used_cells].sum())
        return H5adLayout(
            path=path, key=key, kind=kind, shape=shape, n_entries=n_entries, names=names, ids=ids, id_keys=id_keys,
            used_cells=used_cells, used_genes=used_genes, coords=coords, stamp=(stat.st_size, stat.st_mtime_ns),
            warnings=warnings,
        )  # fmt: skip


def read_rows(
    layout: H5adLayout, first: int, last: int, rows: int
) -> Iterator[tuple[int, NDArray[Any], NDArray[Any], NDArray[Any]]]:
    """Stream ``(first row, indptr from 0, indices, data)`` of the rows [first, last) of the file.

    Compressed rows and dense matrices are read where these rows are; of compressed columns everything is read, window
    by window, and the rows of the range are kept.

    At most `rows` rows are read at a time, fewer where they hold more than 2^22 stored entries or 64 MiB of a dense
    matrix.

    Raises
    ------
    InputError
        E231 when a part of the file is damaged, E102 for malformed pointers or columns, E226 for a range of
        compressed columns that does not fit into 8 GiB of memory.
    """
    where = short_path(layout.path)
    if first >= last:
        return
    with open_file(layout.path) as file:
        matrix = get_node(file, layout.key, where)
        if layout.kind == "dense":
            yield from _dense_rows(matrix, first, last, rows)
        elif layout.kind == "csc":
            part = _rows_of_columns(matrix, layout.shape, first, last, where)
            for a, b in windows(part.indptr, rows):
                inside = slice(part.indptr[a], part.indptr[b])
                yield first + a, part.indptr[a : b + 1] - part.indptr[a], part.indices[inside], part.data[inside]
        else:
            indptr = matrix["indptr"][first : last + 1].astype(np.int64)
            for a, b in windows(indptr, rows):
                inside = slice(int(indptr[a]), int(indptr[b]))
                yield first + a, indptr[a : b + 1] - indptr[a], matrix["indices"][inside], matrix["data"][inside]


def _dense_rows(
    matrix: h5py.Dataset, first: int, last: int, rows: int
) -> Iterator[tuple[int, NDArray[Any], NDArray[Any], NDArray[Any]]]:
    n_columns = matrix.shape[1]
    step = max(1, min(rows, DENSE_SLICE_BYTES // max(1, n_columns * matrix.dtype.itemsize)))
    tall = matrix.chunks[0] if matrix.chunks else 1
    while first < last:
        stop = min(first + step, last)
        aligned = stop // tall * tall
        if first < aligned and stop < last:
            stop = aligned
        values = matrix[first:stop].ravel()
        places = np.flatnonzero(values != 0)
        indptr = np.searchsorted(places, np.arange(stop - first + 1) * n_columns)
        yield first, indptr, (places % n_columns).astype(np.int32), values[places]
        first = stop


def _rows_of_columns(matrix: h5py.Group, shape: tuple[int, int], first: int, last: int, where: str) -> sp.csr_matrix:
    """Collect the rows [first, last) of compressed columns, reading 2^22 entries at a time."""
    n_entries = matrix["indices"].shape[0]
    itemsize = sum(matrix[part].dtype.itemsize for part in ("data", "indices"))
    size = itemsize * n_entries * (last - first) / max(shape[0], 1)
    if 2 * size > MAX_CSC_BYTES:
        msg = f"the matrix is stored by columns and takes {format_bytes(size)}"
        raise InputError(msg, code="E226", where=where, fix="write the file with adata.X = adata.X.tocsr()")
    indptr = matrix["indptr"][()].astype(np.int64)
    check_pointers(indptr, shape[1], n_entries, matrix["data"].shape[0], where=where, row="column")
    lengths = np.zeros(shape[1], dtype=np.int64)
    rows, values = [np.zeros(0, dtype=np.int32)], [np.zeros(0, dtype=matrix["data"].dtype)]
    for a, b in windows(indptr, shape[1]):
        inside = slice(int(indptr[a]), int(indptr[b]))
        indices, data = matrix["indices"][inside], matrix["data"][inside]
        starts = indptr[a : b + 1] - indptr[a]
        check_structure(starts, indices, data, shape[0], where=where, first_cell=a, row="column")
        wanted = np.flatnonzero((indices >= first) & (indices < last))
        lengths[a:b] = np.diff(np.searchsorted(wanted, starts))
        rows.append((indices[wanted].astype(np.int64) - first).astype(np.int32))
        values.append(data[wanted])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    columns = (np.concatenate(values), np.concatenate(rows), starts)
    return sp.csc_matrix(columns, shape=(last - first, shape[1])).tocsr()


def _require_anndata(file: h5py.File, where: str) -> None:
    missing = [key for key in ("obs", "var") if key not in file]
    if missing:
        found = ", ".join(shorten(key, 20) for key in list(file)[:6]) or "nothing"
        fix = "read it with scanpy (read_10x_h5, mudata, ...) and write a .h5ad file"
        msg = f"an HDF5 file, but not AnnData: it holds {found}"
        raise InputError(msg, code="E230", where=where, fix=fix)
    for key in ("obs", "var"):
        if not isinstance(get_node(file, key, where), h5py.Group):
            msg = f"`{key}` is in the format of AnnData before 0.7"
            raise InputError(msg, code="E230", where=where, fix="read and write the file with a current AnnData")


def _identifiers(var: h5py.Group, names: list[str], gene_id_key: str | None, where: str) -> tuple[list[str], list[str]]:
    index = str(var.attrs.get("_index", "_index"))
    columns = [key for key in var if key not in {index, "__categories"}]
    if gene_id_key is None:
        if len(set(names)) == len(names):
            return names, []
        return names, [key for key in columns if _is_unique_text(var, key, len(names), where)]
    if gene_id_key not in columns:
        listed = ", ".join(shorten(key, 20) for key in columns[:8]) or "none"
        msg = f"there is no column `{shorten(gene_id_key, 30)}` in var (columns: {listed})"
        raise InputError(msg, code="E255", where=where, fix="correct `gene_id_key`")
    ids = read_strings(var, gene_id_key, where)
    if len(ids) != len(names):
        raise_malformed(f"`{gene_id_key}` has {len(ids)} rows for {len(names)} genes", where)
    return ids, []


def _is_unique_text(var: h5py.Group, key: str, n: int, where: str) -> bool:
    node = get_node(var, key, where)
    text = isinstance(node, h5py.Group) or (node.dtype.kind in "OS" and node.ndim == 1)
    try:
        return text and len(set(read_strings(var, key, where))) == n
    except InputError:
        return False  # a column that is not names is no candidate


def _matrix_key(file: h5py.File, layer: str | None, where: str) -> tuple[str, str]:
    """Return the keys of the matrix and of the frame of its genes."""
    present = list_matrices(file)
    key = "X" if layer is None else "raw/X" if layer == "raw" and "layers/raw" not in present else f"layers/{layer}"
    if key in present:
        return key, "raw/var" if key == "raw/X" else "var"
    listed = ", ".join(f"{_setting(k)} {s}" for k, s in list(present.items())[:4]) or "none"
    others = [_setting(k) for k in present]
    code = "E221" if layer is None and len(others) > 1 else "E220"
    fix = f"set `layer: {others[0]}`" if others and others[0] != "X" else "leave `layer` out" if others else ""
    msg = f"there is no matrix `{shorten(key, 30)}` (matrices: {listed})"
    raise InputError(msg, code=code, where=where, fix=fix or "give a file with raw counts")


def _setting(key: str) -> str:
    return "X" if key == "X" else "raw" if key == "raw/X" else key.removeprefix("layers/")


def list_matrices(file: h5py.File) -> dict[str, tuple[int, ...]]:
    """List the matrices of a file with their shapes, the likeliest places of raw counts first."""
    keys = [f"layers/{name}" for name in file["layers"]] if isinstance(file.get("layers"), h5py.Group) else []
    if isinstance(file.get("raw"), h5py.Group) and "X" in file["raw"]:
        keys.append("raw/X")
    keys.append("X")
    order = {f"layers/{name}" if name != "raw" else "raw/X": i for i, name in enumerate(PREFERRED_LAYERS)}
    shapes = {key: _shape(file.get(key)) for key in sorted(keys, key=lambda k: order.get(k, len(order)))}
    return {key: shape for key, shape in shapes.items() if len(shape) == 2}


def _shape(node: object) -> tuple[int, ...]:
    if isinstance(node, h5py.Dataset):
        return tuple(int(n) for n in node.shape or ())
    if isinstance(node, h5py.Group):
        shape = node.attrs.get("shape", node.attrs.get("h5sparse_shape", ()))
        return tuple(int(n) for n in np.atleast_1d(shape))
    return ()


def _matrix(file: h5py.File, key: str, where: str) -> tuple[str, tuple[int, int], NDArray[np.int64] | None]:
    node = get_node(file, key, where)
    rows, columns = _shape(node)
    if isinstance(node, h5py.Dataset):
        if node.dtype.kind not in "biuf":
            raise_malformed(f"`{key}` holds {node.dtype}, expected numbers", where)
        return "dense", (rows, columns), None
    encoding = node.attrs.get("encoding-type", node.attrs.get("h5sparse_format", ""))
    encoding = encoding.decode() if isinstance(encoding, bytes) else str(encoding)
    kind = encoding.removesuffix("_matrix")
    if kind not in {"csr", "csc"}:
        msg = f"`{key}` is stored as {shorten(encoding, 30) or 'an unknown encoding'}, expected csr, csc or dense"
        raise_malformed(msg, where, FROM_ANNDATA)
    for part, kinds in (("indptr", "iu"), ("indices", "iu"), ("data", "biuf")):
        dataset = get_node(node, part, where)
        if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 1 or dataset.dtype.kind not in kinds:
            raise_malformed(f"malformed sparse matrix: `{key}/{part}` is not a vector of numbers", where)
    if kind == "csc":
        return kind, (rows, columns), None
    indptr = node["indptr"][()].astype(np.int64)
    check_pointers(indptr, rows, node["indices"].shape[0], node["data"].shape[0], where=where)
    return kind, (rows, columns), indptr


def _used_genes(var: h5py.Group, names: list[str], where: str, warnings: list[str]) -> NDArray[np.int64] | None:
    """Leave out columns without a name and, in a multi-modal matrix, columns that are not genes."""
    used = np.array([bool(name) for name in names], dtype=bool)
    if not used.all():
        first = int(np.flatnonzero(~used)[0])
        warnings.append(f"W241: {(~used).sum()} columns without a gene name were left out (first: column {first})")
    if "feature_types" in var:
        kinds = np.array(read_strings(var, "feature_types", where))
        genes = kinds == "Gene Expression"
        if len(kinds) == len(names) and genes.any() and not genes.all():
            dropped = ", ".join(sorted({shorten(str(kind), 24) for kind in kinds[~genes]}))
            warnings.append(f"W218: {(~genes).sum()} columns that are not genes were left out ({dropped})")
            used &= genes
    return None if used.all() else np.flatnonzero(used).astype(np.int64)


def count_matrices(file: h5py.File, *, besides: str) -> list[str]:
    """Name the matrices that look like raw counts, in the words of the setting `layer`.

    A sample of the first and last stored values has to be whole, not negative and not all ones.
    """
    found = []
    for key in list_matrices(file):
        node = file[key]
        values = node["data"] if isinstance(node, h5py.Group) and "data" in node else node
        if key == besides or not isinstance(values, h5py.Dataset) or values.dtype.kind not in "iuf":
            continue
        sample = _sample(values)
        if len(sample) and np.isfinite(sample).all() and (sample == np.floor(sample)).all():
            whole = sample.min() >= 0 and 1 < sample.max() <= MAX_COUNT
            found.extend([_setting(key)] if whole else [])
    return found


def _sample(values: h5py.Dataset) -> NDArray[Any]:
    if values.ndim == 1:
        n = values.shape[0]
        parts = [values[: min(n, SAMPLE)], values[max(0, n - SAMPLE) :]]
        return np.concatenate(parts)
    rows = max(1, SAMPLE // max(1, values.shape[1]))
    result: NDArray[Any] = values[:rows].ravel()
    return result
