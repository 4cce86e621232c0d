"""AnnData in the groups of HDF5 (``.h5ad``, ``.h5mu``) or zarr, as a container."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from musegnn.data_store.formats.arrays import CompressedMatrix, DenseMatrix
from musegnn.data_store.formats.container import ColumnTable
from musegnn.data_store.hdf5 import (
    decode_categories,
    get_node,
    index_key,
    is_group,
    names_in,
    no_column,
    read_strings,
    read_values,
)
from musegnn.data_store.validate import FROM_ANNDATA, raise_malformed
from musegnn.errors import InputError
from musegnn.text import shorten, some_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.data_store.formats.container import Matrix, Table
    from musegnn.data_store.location import Location

PREFERRED_LAYERS = ("counts", "raw_counts", "raw", "spliced")
PARTS = {"mod": "modalities", "tables": "tables"}
"""Groups of MuData and of SpatialData, each of whose members is an AnnData."""


class AnnDataContainer:
    """One AnnData in a file.

    Parameters
    ----------
    root
        Group of the AnnData.
    format
        Name of the format.
    location
        The file or folder.
    """

    id_column = None

    def __init__(self, root: Any, format: str, location: Location) -> None:  # noqa: A002  as the attribute is called
        self._root, self.format, self._where, self._location = root, format, location.where, location
        self._nodes = self._find_matrices()

    @property
    def files(self) -> list[Location]:
        """All files of the folder, or the one file."""
        return self._location.files()

    def matrices(self) -> dict[str, tuple[int, int]]:
        """Return the shapes of all matrices; see :meth:`Container.matrices`."""
        order = {name: i for i, name in enumerate(PREFERRED_LAYERS)}
        shapes = {name: _shape(node) for name, (node, _, _) in self._nodes.items()}
        chosen = sorted(shapes, key=lambda name: order.get(name, len(order) + (name == "X")))
        return {name: (shape[0], shape[1]) for name in chosen if len(shape := shapes[name]) == 2}

    def matrix(self, layer: str) -> Matrix:
        """Open a matrix and check its structure."""
        _, key, _ = self._nodes[layer]
        node = get_node(self._root, key, self._where)
        if not is_group(node):
            return DenseMatrix(node, transposed=False, where=self._where, label=key)
        rows, columns = _shape(node)
        encoding = node.attrs.get("encoding-type", node.attrs.get("h5sparse_format", ""))
        encoding = encoding.decode() if isinstance(encoding, bytes) else str(encoding)
        kind = encoding.removesuffix("_matrix")
        if kind not in {"csr", "csc"}:
            msg = f"`{key}` is stored as {shorten(encoding, 30) or 'an unknown encoding'}, expected csr, csc or dense"
            raise_malformed(msg, self._where, FROM_ANNDATA)
        return CompressedMatrix(node, (rows, columns), by_column=kind == "csc", where=self._where, label=key)

    def cells(self) -> Table:
        """Return ``obs``."""
        return self._frame("obs")

    def genes(self, layer: str) -> Table:
        """Return ``var``, that of ``raw`` for its matrix."""
        return self._frame(self._nodes[layer][2])

    def coordinates(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the matrices in ``obsm``."""
        obsm = self._root.get("obsm")
        if obsm is None:
            return {}
        if not is_group(obsm):  # before AnnData 0.7: one compound array
            return {name: (obsm.shape[0], *obsm.dtype[name].shape) for name in obsm.dtype.names or ()}
        return {name: _shape(obsm.get(name)) for name in names_in(obsm)}

    def read_coordinates(self, key: str) -> NDArray[Any]:
        """Read a matrix of ``obsm``."""
        obsm = get_node(self._root, "obsm", self._where)
        node = get_node(obsm, key, self._where) if is_group(obsm) else obsm[key]
        if is_group(node) and "_index" in node.attrs:  # a data frame
            table = _GroupTable(node, self._where, f"obsm[{key!r}]")
            return np.stack([table.values(column) for column in table.columns()], axis=1)
        values: NDArray[Any] = np.zeros(0) if is_group(node) else node[:]
        return values

    def _find_matrices(self) -> dict[str, tuple[Any, str, str]]:
        """Return node, path and table of genes of each matrix."""
        root, names = self._root, set(names_in(self._root))  # each look into a group of zarr takes long
        found = {}
        raw = root.get("raw") if "raw" in names else None
        if raw is not None and is_group(raw) and "X" in raw:
            found["raw"] = (raw.get("X"), "raw/X", "raw/var")
        if "raw.X" in names:
            found["raw"] = (root.get("raw.X"), "raw.X", "raw.var")
        layers = root.get("layers") if "layers" in names else None
        if layers is not None and is_group(layers):
            found |= {name: (layers.get(name), f"layers/{name}", "var") for name in names_in(layers)}
        if "X" in names:
            found["X"] = (root.get("X"), "X", "var")
        return found

    def _frame(self, key: str) -> Table:
        node = get_node(self._root, key, self._where)
        if is_group(node):
            return _GroupTable(node, self._where, key)
        return _old_table(self._root, node, self._where)


class _GroupTable:
    """A data frame in a group."""

    def __init__(self, group: Any, where: str, label: str) -> None:
        self._group, self._where, self._label = group, where, label
        self._index = index_key(group)

    def names(self) -> list[str]:
        return read_strings(self._group, self._index, self._where)

    def columns(self) -> list[str]:
        return [key for key in names_in(self._group) if key not in {self._index, "_index", "__categories"}]

    def values(self, column: str) -> NDArray[Any]:  # text or float64
        if column not in self.columns():
            raise no_column(column, self.columns(), where=self._where, table=self._label)
        return read_values(self._group, column, self._where)

    def n_labels(self, column: str) -> int | None:
        node = self._group.get(column)
        if is_group(node) and "categories" in node:
            return int(node["categories"].shape[0])
        old = self._group.get("__categories")
        return int(old[column].shape[0]) if old is not None and column in old else None


def _old_table(root: Any, array: Any, where: str) -> Table:
    """Return a data frame of AnnData before 0.7: one compound array, whose categories are in ``uns``."""
    fields = list(array.dtype.names or ())
    if array.ndim != 1 or not fields:
        raise_malformed("a table of cells or genes is neither a group nor a compound array", where, FROM_ANNDATA)
    values = array[:]
    uns = root.get("uns")

    def read(name: str) -> NDArray[Any]:
        column: NDArray[Any] = values[name]
        key = f"{name}_categories"
        if column.dtype.kind in "iu" and uns is not None and key in uns:
            return decode_categories(column, read_strings(uns, key, where), shorten(name, 30), where)
        if column.dtype.kind in "SO":
            return np.array([v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in column])
        return column

    index = "index" if "index" in fields else "_index" if "_index" in fields else fields[0]
    return ColumnTable(read(index).tolist(), {f: partial(read, f) for f in fields if f != index}, where)


def _shape(node: Any) -> tuple[int, ...]:
    if node is None:
        return ()
    if is_group(node):
        shape = node.attrs.get("shape", node.attrs.get("h5sparse_shape", ()))
        if "_index" in node.attrs:  # a data frame, whose other columns are its dimensions
            return (int(node[index_key(node)].shape[0]), len([k for k in node if k != index_key(node)]))
        return tuple(int(n) for n in np.atleast_1d(shape))
    return tuple(int(n) for n in node.shape or ())


def list_parts(root: Any) -> list[str]:
    """Return the modalities of MuData or the tables of SpatialData, where there are several."""
    for key in PARTS:
        parts = root.get(key)
        if parts is not None and is_group(parts) and "X" not in root:
            names = sorted(name for name in names_in(parts) if is_group(parts.get(name)))
            return names if len(names) > 1 else []
    return []


def choose_part(root: Any, mod: str | None, where: str) -> tuple[Any, str]:
    """Return the AnnData of a file that may hold several, and what the file is.

    Raises
    ------
    InputError
        E222 when one has to be chosen with `mod`, or there is no such one; E230 when the file holds no AnnData.
    """
    held = set(names_in(root))
    for key, kind in PARTS.items():
        parts = root.get(key) if key in held else None
        if parts is None or not is_group(parts) or ("X" in held and mod is None):
            continue
        names = sorted(name for name in names_in(parts) if is_group(parts.get(name)))
        chosen = names[0] if mod is None and len(names) == 1 else mod
        if chosen not in names:
            msg = f"holds the {kind} {some_of([shorten(name, 20) for name in names], 6)}"
            what = "choose one with `mod`" if mod is None else f"there is no `mod: {shorten(mod, 30)}`"
            fix = f"set `mod: {names[0]}`" if names else "write one AnnData to a file"
            msg = f"{what}: it {msg}"
            raise InputError(msg, code="E222", where=where, fix=fix)
        return get_node(parts, chosen, where), f"MuData, {chosen}" if key == "mod" else f"SpatialData, {chosen}"
    if mod is not None:
        msg = "`mod` is set, but the file holds no modalities"
        raise InputError(msg, code="E222", where=where, fix="leave `mod` out")
    missing = [key for key in ("obs", "var") if key not in held]
    if missing:
        found = ", ".join(shorten(str(key), 20) for key in list(root)[:6]) or "nothing"
        msg = f"no AnnData: it holds {found}"
        raise InputError(msg, code="E230", where=where, fix="read it where it was written and write a .h5ad file")
    return root, ""
