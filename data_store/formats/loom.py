"""Loom files: a dense matrix of genes x cells in chunks, attributes of rows and columns, and layers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from musegnn.data_store.formats.arrays import DenseMatrix
from musegnn.data_store.formats.container import ColumnTable
from musegnn.data_store.hdf5 import get_node, is_group, names_in, read_strings, read_values
from musegnn.errors import InputError
from musegnn.text import shorten, some_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.data_store.formats.container import Matrix, Table
    from musegnn.data_store.location import Location

GENE_NAMES = ("Gene", "var_names", "gene_name", "gene_names", "GeneName", "Genes", "gene", "Symbol", "gene_symbol")
GENE_IDS = ("Accession", "gene_ids", "ensembl_id", "EnsemblID", "Ensembl")
CELL_NAMES = ("CellID", "obs_names", "cell_id", "cell_names", "CellIDs", "Barcode", "barcode", "barcodes")


class LoomContainer:
    """A loom file; matrices are called ``X`` and by the names of layers."""

    format = "loom"

    def __init__(self, root: Any, location: Location) -> None:
        self.files = [location]
        self._root, self._where = root, location.where
        self._rows, self._columns = (get_node(root, key, location.where) for key in ("row_attrs", "col_attrs"))
        self.id_column = next((key for key in GENE_IDS if key in self._rows), None)

    def matrices(self) -> dict[str, tuple[int, int]]:
        """Return the shapes of the matrix and its layers, as cells x genes."""
        layers = self._root.get("layers")
        nodes = {"X": self._root["matrix"]}
        if layers is not None and is_group(layers):
            nodes |= {name: layers.get(name) for name in names_in(layers)}
        return {
            name: (int(node.shape[1]), int(node.shape[0]))
            for name, node in nodes.items()
            if node is not None and not is_group(node) and node.ndim == 2
        }

    def matrix(self, layer: str) -> Matrix:
        """Open a matrix."""
        key = "matrix" if layer == "X" else f"layers/{layer}"
        return DenseMatrix(get_node(self._root, key, self._where), transposed=True, where=self._where, label=key)

    def cells(self) -> Table:
        """Return the attributes of columns."""
        name = next((key for key in CELL_NAMES if key in self._columns), None)
        n_cells = int(self._root["matrix"].shape[1])
        names = [str(i) for i in range(n_cells)] if name is None else read_strings(self._columns, name, self._where)
        return self._table(names, self._columns, name)

    def genes(self, layer: str) -> Table:
        """Return the attributes of rows."""
        del layer
        name = next((key for key in GENE_NAMES if key in self._rows), self.id_column)
        if name is None:
            found = some_of([shorten(key, 20) for key in names_in(self._rows)])
            msg = f"no row attribute holds names of genes (there are {found})"
            raise InputError(msg, code="E230", where=self._where, fix="write names as the row attribute Gene")
        return self._table(read_strings(self._rows, name, self._where), self._rows, name)

    def _table(self, names: list[str], group: Any, index: str | None) -> Table:
        columns = {
            key: partial(read_values, group, key, self._where)
            for key in names_in(group)
            if key != index and getattr(group.get(key), "ndim", 0) == 1  # a link that leads nowhere has none
        }
        return ColumnTable(names, columns, self._where)

    def coordinates(self) -> dict[str, tuple[int, ...]]:
        """Return the attributes of cells with several values each."""
        found = {key: self._columns.get(key) for key in names_in(self._columns)}
        return {key: tuple(node.shape) for key, node in found.items() if getattr(node, "ndim", 0) == 2}

    def read_coordinates(self, key: str) -> NDArray[Any]:
        """Read such an attribute."""
        values: NDArray[Any] = get_node(self._columns, key, self._where)[:]
        return values
