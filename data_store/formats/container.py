"""What every file format is turned into: tables of cells and genes, and matrices that are read by rows.

Legend: C cells, G genes, b rows of a part, V stored values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from musegnn.data_store.hdf5 import no_column

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from musegnn.data_store.location import Location

Part = tuple[int, "NDArray[Any]", "NDArray[Any]", "NDArray[Any]"]
"""Number of the first row, row pointers from 0 (b + 1,), columns (V,) and values (V,)."""

Access = Literal["rows", "sequential", "columns"]
"""What a range of rows costs: the range; all rows up to its end; or a pass over the file, and memory for the range."""


MAX_COUNTED = 100_000


class Table(Protocol):
    """Rows with names and columns, such as ``obs`` and ``var`` of AnnData."""

    def names(self) -> list[str]:
        """Return the names of the rows."""

    def columns(self) -> list[str]:
        """Return the names of the columns."""

    def values(self, column: str) -> NDArray[Any]:  # text or float64
        """Return a column in the form of :meth:`~musegnn.data_store.count_source.CountSource.obs`, E255 without it."""

    def n_labels(self, column: str) -> int | None:
        """Return the number of categories of a column, where it is known without reading the column."""


class Matrix(Protocol):
    """A matrix of cells x genes in a file.

    Attributes
    ----------
    n_entries
        Stored entries, where they are known without reading counts.
    lengths
        Stored entries of each row, where they are known.
    storage
        Kind, type, chunks and compression in words.
    """

    shape: tuple[int, int]
    access: Access
    n_entries: int | None
    lengths: NDArray[np.int64] | None
    storage: str

    def rows(self, first: int, last: int, rows: int) -> Iterator[Part]:
        """Stream the rows [first, last), at most `rows` of them and some 2^22 entries or 64 MiB at a time."""

    def sample(self) -> NDArray[Any]:
        """Return some of the stored values, empty where they cannot be had without a pass over the file."""

    def transposed(self) -> Matrix:
        """Return the matrix with rows and columns turned."""


class Container(Protocol):
    """An open file or folder with matrices of the same cells.

    Attributes
    ----------
    format
        Name of the format for users.
    id_column
        Column of the genes that holds identifiers in this format, if it has a fixed one.
    files
        All files that are read.
    """

    format: str

    @property
    def id_column(self) -> str | None:
        """Column of identifiers."""

    @property
    def files(self) -> list[Location]:
        """All files that are read."""

    def matrices(self) -> dict[str, tuple[int, int]]:
        """Return the shapes of all matrices by the value of the setting `layer`, likeliest raw counts first.

        The main matrix is ``X``.
        """

    def matrix(self, layer: str) -> Matrix:
        """Open one of these matrices and check its structure."""

    def cells(self) -> Table:
        """Return the table of cells."""

    def genes(self, layer: str) -> Table:
        """Return the table of the genes of a matrix."""

    def coordinates(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of what may be coordinates of cells, by name."""

    def read_coordinates(self, key: str) -> NDArray[Any]:
        """Read coordinates as they are stored."""


class ColumnTable:
    """A table in memory.

    Parameters
    ----------
    names
        Names of the rows.
    columns
        Columns by name, each read at first use.
    where
        File for messages.
    """

    def __init__(self, names: list[str], columns: Mapping[str, Callable[[], NDArray[Any]]], where: str) -> None:
        self._names, self._columns, self._where = names, columns, where

    def names(self) -> list[str]:
        """Return the names of the rows."""
        return self._names

    def columns(self) -> list[str]:
        """Return the names of the columns."""
        return list(self._columns)

    def values(self, column: str) -> NDArray[Any]:  # text or float64
        """Return a column; see :meth:`Table.values`."""
        if column not in self._columns:
            raise no_column(column, list(self._columns), where=self._where)
        return plain(self._columns[column]())

    def n_labels(self, column: str) -> int | None:
        """Return the number of different values of a column of text, in tables of at most 100,000 rows."""
        if len(self._names) > MAX_COUNTED:
            return None
        values = self.values(column)
        return None if values.dtype.kind == "f" else len(np.unique(values))


def plain(values: NDArray[Any]) -> NDArray[Any]:
    """Turn a column into text or float64."""
    values = np.asarray(values)
    if values.dtype.kind in "biuf":
        return values.astype(np.float64)
    return np.array(["" if value is None or value != value else str(value) for value in values.tolist()], dtype=np.str_)


class TransposedContainer:
    """A container whose rows are genes and whose columns are cells, turned."""

    def __init__(self, container: Container) -> None:
        self._container, self.files = container, container.files
        self.format, self.id_column = f"{container.format}, transposed", None

    def matrices(self) -> dict[str, tuple[int, int]]:
        """Return the turned shapes."""
        return {layer: (shape[1], shape[0]) for layer, shape in self._container.matrices().items()}

    def matrix(self, layer: str) -> Matrix:
        """Open a matrix turned."""
        return self._container.matrix(layer).transposed()

    def cells(self) -> Table:
        """Return what the file has as the table of genes."""
        return self._container.genes("X" if "X" in self._container.matrices() else next(iter(self.matrices())))

    def genes(self, layer: str) -> Table:
        """Return what the file has as the table of cells."""
        del layer
        return self._container.cells()

    def coordinates(self) -> dict[str, tuple[int, ...]]:
        """Return nothing: coordinates in such a file are of genes."""
        return {}

    def read_coordinates(self, key: str) -> NDArray[Any]:
        """Return nothing."""
        del key
        return np.zeros((0, 2))
