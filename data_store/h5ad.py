"""Read AnnData files with HDF5 alone: structure is checked at open, counts are streamed by rows.

Files come from strangers. Links out of the file and arrays whose declared size has no relation to what is stored
are refused before anything is allocated, and no array of the matrix is read whole but the row pointers.

Legend: C cells, G genes of the file, d spatial dimensions.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import scipy.sparse as sp

from musegnn.data_store.names import decode_names, looks_transposed
from musegnn.data_store.spatial import read_coords, tissue_mask
from musegnn.data_store.validate import MAX_COUNT, check_structure, short_path, shorten
from musegnn.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
BOMB_BYTES = 64 * 2**20
BOMB_RATIO = 1000
DENSE_SLICE_BYTES = 64 * 2**20
MAX_CSC_BYTES = 8 * 2**30
PREFERRED_LAYERS = ("counts", "raw_counts", "raw", "spliced")
SAMPLE = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class H5adLayout:
    """Where the counts of a file are, and what was read of its names.

    Attributes
    ----------
    path, key, kind, shape
        The file, the matrix in it, ``csr``, ``csc`` or ``dense``, and its shape.
    indptr
        Row pointers of ``csr``, shape (C + 1,), int64; ``None`` otherwise.
    names, ids, id_keys
        Gene names and identifiers of all columns; other columns of ``var`` with unique values.
    used_cells, used_genes
        Cells to read as a mask, and columns to read as indices; ``None``: all.
    coords
        Coordinates of the cells read, shape (n_used, d), float64, or ``None``.
    stamp
        Size and modification time of the file.
    """

    path: Path
    key: str
    kind: str
    shape: tuple[int, int]
    indptr: NDArray[np.int64] | None
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

    @property
    def columns(self) -> NDArray[np.str_]:
        """Gene names of all columns."""
        return np.array(self.names, dtype=np.str_)


@contextmanager
def open_file(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading.

    Raises
    ------
    InputError
        E230 when the file is missing or something else; E231 when it is truncated, or when the HDF5 library meets
        damage while the file is open, which it reports by many types of errors.
    """
    _sniff(path)
    fix = "copy or download the file again"
    try:
        with h5py.File(path, "r") as file:
            yield file
    except InputError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
        sizes = re.search(r"eof = (\d+).*stored_eof = (\d+)", str(error))
        detail = shorten(" ".join(str(error).split()), 80)
        msg = f"truncated file: it has {sizes[1]} bytes and says {sizes[2]}" if sizes else f"damaged file ({detail})"
        raise InputError(msg, code="E231", where=short_path(path), fix=fix) from error


def _sniff(path: Path) -> None:
    where = short_path(path)
    if not path.is_file():
        what = "a folder, expected a .h5ad file" if path.is_dir() else "there is no such file"
        raise InputError(what, code="E230", where=where, fix="correct `path` in the atlas file")
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(HDF5_SIGNATURE):
        return
    known = (
        (not head, "the file is empty", "download the file again"),
        (head[:2] == b"\x1f\x8b", "a gzip file, not HDF5", "decompress it with gunzip"),
        (head[:2] == b"PK", "a zip file, not HDF5", "extract the .h5ad file from it"),
        (head.startswith(b"version https://git-lfs"), "a Git LFS pointer, not the data", "run git lfs pull"),
        (head.lstrip()[:1] == b"<", "an HTML or XML page, not HDF5", "download the file itself"),
        (head.startswith(b"%%MatrixMarket"), "a Matrix Market file", "read it with scanpy and write a .h5ad file"),
    )
    for matches, what, fix in known:
        if matches:
            raise InputError(what, code="E230", where=where, fix=fix)
    msg = "not an HDF5 file"
    raise InputError(msg, code="E230", where=where, fix="give a .h5ad file written by AnnData")


def inspect(path: Path, *, layer: str | None, gene_id_key: str | None, spatial_key: str | None) -> H5adLayout:
    """Check the structure of a file and read its names.

    Raises
    ------
    InputError
        For every structure that cannot be read as cells x genes counts.
    """
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
            raise InputError(msg, code="E102", where=where, fix="write the file anew from its source")
        warnings = []
        if kind == "csc":
            warnings.append(f"W226: {key} is stored by columns and is turned into rows in memory on every pass")
        names = [name or gene_id for name, gene_id in zip(names, ids, strict=True)]
        used_genes = _used_genes(file[var], names, where, warnings)
        coords = used_cells = None
        if spatial_key is not None:
            used_cells = tissue_mask(file, len(cells), where, warnings)
            coords = read_coords(file, spatial_key, len(cells), used_cells, where)
        return H5adLayout(
            path=path, key=key, kind=kind, shape=shape, indptr=indptr, names=names, ids=ids, id_keys=id_keys,
            used_cells=used_cells, used_genes=used_genes, coords=coords, stamp=(stat.st_size, stat.st_mtime_ns),
            warnings=warnings,
        )  # fmt: skip


def read_rows(layout: H5adLayout, rows: int) -> Iterator[tuple[int, NDArray[np.int64], NDArray[Any], NDArray[Any]]]:
    """Stream ``(first row, indptr from 0, indices, data)`` of consecutive rows.

    Raises
    ------
    InputError
        E231 when a part of the file is damaged, E102 for malformed columns.
    """
    where = short_path(layout.path)
    n_cells = layout.shape[0]
    with open_file(layout.path) as file:
        matrix = _get(file, layout.key, where)
        whole = _rows_of_columns(matrix, layout.shape, where) if layout.kind == "csc" else None
        for start in range(0, n_cells, rows):
            stop = min(start + rows, n_cells)
            if whole is not None:
                block = whole[start:stop]
                yield start, block.indptr.astype(np.int64), block.indices, block.data
            elif layout.kind == "dense":
                yield start, *_dense_rows(matrix, start, stop)
            else:
                assert layout.indptr is not None
                indptr = layout.indptr[start : stop + 1]
                part = slice(int(indptr[0]), int(indptr[-1]))
                yield start, indptr - indptr[0], matrix["indices"][part], matrix["data"][part]


def _dense_rows(matrix: h5py.Dataset, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]:
    step = max(1, DENSE_SLICE_BYTES // max(1, matrix.shape[1] * matrix.dtype.itemsize))
    parts = [sp.csr_matrix(matrix[i : min(i + step, stop)]) for i in range(start, stop, step)]
    lengths = np.concatenate([np.diff(part.indptr) for part in parts])
    indptr = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return indptr, np.concatenate([p.indices for p in parts]), np.concatenate([p.data for p in parts])


def _rows_of_columns(matrix: h5py.Group, shape: tuple[int, int], where: str) -> sp.csr_matrix:
    size = sum(matrix[part].size * matrix[part].dtype.itemsize for part in ("data", "indices"))
    if 2 * size > MAX_CSC_BYTES:
        msg = f"the matrix is stored by columns and takes {size / 2**30:.0f} GiB"
        raise InputError(msg, code="E226", where=where, fix="write the file with adata.X = adata.X.tocsr()")
    indptr, indices, data = (matrix[part][()] for part in ("indptr", "indices", "data"))
    check_structure(indptr.astype(np.int64), indices, data, shape[0], where=where)
    return sp.csc_matrix((data, indices, indptr), shape=shape).tocsr()


def _require_anndata(file: h5py.File, where: str) -> None:
    missing = [key for key in ("obs", "var") if key not in file]
    if missing:
        found = ", ".join(shorten(key, 20) for key in list(file)[:6]) or "nothing"
        fix = "read it with scanpy (read_10x_h5, mudata, ...) and write a .h5ad file"
        msg = f"an HDF5 file, but not AnnData: it holds {found}"
        raise InputError(msg, code="E230", where=where, fix=fix)
    for key in ("obs", "var"):
        if not isinstance(_get(file, key, where), h5py.Group):
            msg = f"`{key}` is in the format of AnnData before 0.7"
            raise InputError(msg, code="E230", where=where, fix="read and write the file with a current AnnData")


def _get(file: h5py.Group, key: str, where: str) -> h5py.Group | h5py.Dataset:
    """Follow a path inside the file; links out of it and declared sizes beyond belief are refused."""
    node: Any = file
    for part in key.split("/"):
        if not isinstance(node, h5py.Group) or part not in node:
            msg = f"`{shorten(key, 40)}` is missing"
            raise InputError(msg, code="E102", where=where, fix="write the file anew from its source")
        if not isinstance(node.get(part, getlink=True), h5py.HardLink):
            msg = f"`{shorten(key, 40)}` is a link to another place"
            raise InputError(msg, code="E105", where=where, fix="write the data itself into the file")
        node = node[part]
    if isinstance(node, h5py.Dataset):
        _refuse_bombs(node, key, where)
    return node


def _refuse_bombs(dataset: h5py.Dataset, key: str, where: str) -> None:
    if dataset.external or dataset.is_virtual:
        msg = f"`{shorten(key, 40)}` keeps its data in another file"
        raise InputError(msg, code="E105", where=where, fix="write the data itself into the file")
    declared = int(dataset.size or 0) * dataset.dtype.itemsize
    stored = dataset.id.get_storage_size()
    if declared > BOMB_BYTES and declared > BOMB_RATIO * stored:
        msg = f"`{shorten(key, 40)}` declares {declared} bytes but stores {stored}"
        raise InputError(msg, code="E120", where=where, fix="write the file anew from its source")


def read_strings(group: h5py.Group, key: str, where: str) -> list[str]:
    """Read a column of text: plain, categorical or nullable; a missing value is the empty string.

    Raises
    ------
    InputError
        E240 or E241 for names that cannot be used.
    """
    label = f"{group.name.strip('/')}/{shorten(key, 30)}"
    node = _get(group, key, where)
    if isinstance(node, h5py.Dataset):
        if node.ndim != 1:
            msg = f"`{label}` is not a column"
            raise InputError(msg, code="E102", where=where, fix="write the file anew from its source")
        return decode_names([v if isinstance(v, bytes) else str(v) for v in node[()].tolist()], where=where, what=label)
    if "codes" in node and "categories" in node:
        categories = read_strings(node, "categories", where)
        codes = _get(node, "codes", where)[()]
        if len(codes) and (codes.min() < -1 or codes.max() >= len(categories)):
            msg = f"`{label}` has codes outside its categories"
            raise InputError(msg, code="E102", where=where, fix="write the file anew from its source")
        return [categories[code] if code >= 0 else "" for code in codes]
    if "values" in node and "mask" in node:
        missing = _get(node, "mask", where)[()].astype(bool)
        values = read_strings(node, "values", where)
        return ["" if absent else value for value, absent in zip(values, missing, strict=True)]
    msg = f"`{label}` is not a column of text"
    raise InputError(msg, code="E102", where=where, fix="write the file anew with a current AnnData")


def read_index(file: h5py.File, frame: str, where: str) -> list[str]:
    """Read the row names of a data frame such as ``obs``."""
    group = _get(file, frame, where)
    key = group.attrs.get("_index", "_index")
    return read_strings(group, key.decode() if isinstance(key, bytes) else str(key), where)


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
        raise InputError(msg, code="E211", where=where, fix="correct `gene_id_key`")
    ids = read_strings(var, gene_id_key, where)
    if len(ids) != len(names):
        msg = f"`{gene_id_key}` has {len(ids)} rows for {len(names)} genes"
        raise InputError(msg, code="E102", where=where, fix="write the file anew from its source")
    return ids, []


def _is_unique_text(var: h5py.Group, key: str, n: int, where: str) -> bool:
    node = _get(var, key, where)
    text = isinstance(node, h5py.Group) or (node.dtype.kind in "OS" and node.ndim == 1)
    try:
        return text and len(set(read_strings(var, key, where))) == n
    except InputError:
        return False  # a column that is not names is no candidate


def _matrix_key(file: h5py.File, layer: str | None, where: str) -> tuple[str, str]:
    """Give the matrix and the frame of its genes."""
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
    node = _get(file, key, where)
    rows, columns = _shape(node)
    if isinstance(node, h5py.Dataset):
        _require_numbers(node, key, where)
        return "dense", (rows, columns), None
    encoding = node.attrs.get("encoding-type", node.attrs.get("h5sparse_format", ""))
    encoding = encoding.decode() if isinstance(encoding, bytes) else str(encoding)
    kind = encoding.removesuffix("_matrix")
    if kind not in {"csr", "csc"}:
        msg = f"`{key}` is stored as {shorten(encoding, 30) or 'an unknown encoding'}, expected csr, csc or dense"
        raise InputError(msg, code="E102", where=where, fix="write the file anew with a current AnnData")
    for part, kinds in (("indptr", "iu"), ("indices", "iu"), ("data", "biuf")):
        dataset = _get(node, part, where)
        if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 1 or dataset.dtype.kind not in kinds:
            msg = f"malformed sparse matrix: `{key}/{part}` is not a vector of numbers"
            raise InputError(msg, code="E102", where=where, fix="write the file anew from its source")
    if kind == "csc":
        return kind, (rows, columns), None
    indptr = node["indptr"][()].astype(np.int64)
    if len(indptr) != rows + 1:
        msg = f"malformed sparse matrix: {len(indptr)} row pointers for {rows} rows"
        raise InputError(msg, code="E102", where=where, fix="write the file anew from its source")
    nothing = np.zeros(0, dtype=np.int32)
    lengths = {part: node[part].shape[0] for part in ("indices", "data")}
    if indptr[0] != 0 or (np.diff(indptr) < 0).any() or len(set(lengths.values()) | {int(indptr[-1])}) != 1:
        same = np.broadcast_to(nothing.sum(), lengths["indices"]), np.broadcast_to(nothing.sum(), lengths["data"])
        check_structure(indptr, *same, columns, where=where)
    return kind, (rows, columns), indptr


def _require_numbers(node: h5py.Dataset, key: str, where: str) -> None:
    if node.dtype.kind not in "biuf":
        msg = f"`{key}` holds {node.dtype}, expected numbers"
        raise InputError(msg, code="E102", where=where, fix="write the file anew from its source")


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
