"""A Matrix Market file with tables of genes and cells beside it: folders of Cell Ranger, STARsolo, GEO and others."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from musegnn.data_store.formats.container import ColumnTable
from musegnn.data_store.formats.matrix_market import MatrixMarket
from musegnn.data_store.formats.text_files import read_lines, split_lines
from musegnn.errors import InputError
from musegnn.text import shorten, some_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from musegnn.data_store.formats.container import Matrix, Table
    from musegnn.data_store.location import Location

MATRIX = re.compile(r"(?P<prefix>.*?)(?:matrix|counts|count_matrix|dge)?\.mtx(?:\.gz)?\Z", re.IGNORECASE)
ENDING = r"\.(?:tsv|csv|txt|bed)(?:\.gz)?\Z"
GENES = re.compile(rf".*?(?:features?|genes?|gene[_.-]names|peaks)(?:[_.-]metadata)?{ENDING}", re.IGNORECASE)
CELLS = re.compile(rf".*?(?:barcodes?|cells?|cell[_.-]names)(?:[_.-]metadata)?{ENDING}", re.IGNORECASE)
COLUMNS = ("gene_ids", None, "feature_types", "chromosome", "start", "end")
"""Columns of a table of features without header; the second one holds names."""
NAME_COLUMNS = ("gene_name", "gene_symbol", "symbol", "name", "feature_name", "gene")
ID_COLUMNS = ("gene_id", "gene_ids", "ensembl_id", "id", "feature_id")


class TextMatrixContainer:
    """A Matrix Market file and its tables.

    Parameters
    ----------
    location
        The Matrix Market file; tables of the same prefix are taken first.

    Raises
    ------
    InputError
        E233 when tables are missing or several could be meant, E234 when sizes differ.
    """

    def __init__(self, location: Location) -> None:
        self._location, self._where = location, location.where
        names = location.parent.children()
        match = MATRIX.match(location.name)
        prefix = match["prefix"] if match else ""
        matrix = MatrixMarket(location)
        n_rows, n_columns, _ = matrix.size
        genes, cells = (_beside(location, names, pattern, prefix) for pattern in (GENES, CELLS))
        tables = {file: read_lines(file) for file in (*genes, *cells)}
        fit = _fitting(tables, genes, cells, n_rows, n_columns)
        cells_first = fit is None
        if fit is None:
            fit = _fitting(tables, genes, cells, n_columns, n_rows)
        if fit is None:
            raise self._unfitting(genes, cells, matrix, tables)
        self._genes, self._cells = (self._only(files, tables) for files in fit)
        self._matrix = matrix.transposed() if cells_first else matrix
        self.files = [location, self._genes, self._cells]
        self._tables = tables
        self.format = "10x mtx" if self._genes.name.lower().endswith(("features.tsv", "features.tsv.gz")) else "mtx"
        if "genes.tsv" in self._genes.name:
            self.format = "10x mtx, version 2"
        self.id_column: str | None = "gene_ids" if "gene_ids" in self.genes("X").columns() else None

    def matrices(self) -> dict[str, tuple[int, int]]:
        """Return the shape of the one matrix."""
        return {"X": self._matrix.shape}

    def matrix(self, layer: str) -> Matrix:
        """Return the matrix."""
        del layer
        return self._matrix

    def cells(self) -> Table:
        """Return the table of barcodes, with its other columns where it has a header."""
        lines = self._tables[self._cells]
        if len(lines) == self._matrix.shape[0]:
            return ColumnTable(_first_fields(lines), {}, self._where)
        header, *rows = split_lines(lines)
        return ColumnTable(_column(rows, 0), _readers(rows, dict(enumerate(header[1:], start=1))), self._where)

    def genes(self, layer: str) -> Table:
        """Return the table of features."""
        del layer
        rows = split_lines(self._tables[self._genes])
        if re.search(r"\.bed(\.gz)?\Z", self._genes.name, re.IGNORECASE):
            return ColumnTable([f"{row[0]}:{row[1]}-{row[2]}" for row in rows], {}, self._where)
        if len(rows) > self._matrix.shape[1]:
            header, rows = [name.strip().lower() for name in rows[0]], rows[1:]
            name = next((header.index(key) for key in NAME_COLUMNS if key in header), 0)
            kept = {i: key for i, key in enumerate(header) if i != name and key}
            ids = next((i for i, key in kept.items() if key in ID_COLUMNS), None)
            if ids is not None:
                kept[ids] = "gene_ids"
            return ColumnTable(_column(rows, name), _readers(rows, kept), self._where)
        width = min(map(len, rows), default=1)
        if width == 1:
            return ColumnTable(_column(rows, 0), {}, self._where)
        return ColumnTable(
            _column(rows, 1), _readers(rows, {i: key for i, key in enumerate(COLUMNS[:width]) if key}), self._where
        )

    def coordinates(self) -> dict[str, tuple[int, ...]]:
        """Return nothing: coordinates are in other files."""
        return {}

    def read_coordinates(self, key: str) -> NDArray[Any]:
        """Return nothing."""
        del key
        return np.zeros((0, 2))

    def _only(self, files: list[Location], tables: dict[Location, list[str]]) -> Location:
        """Return the one table of several that fit: they have to hold the same names."""
        first = files[0]
        if any(_first_fields(tables[file]) != _first_fields(tables[first]) for file in files[1:]):
            listed = some_of([file.name for file in files])
            msg = f"several tables could be meant ({listed})"
            raise InputError(msg, code="E233", where=self._where, fix="keep the files of one sample in a folder")
        return first

    def _unfitting(
        self,
        genes: list[Location],
        cells: list[Location],
        matrix: MatrixMarket,
        tables: dict[Location, list[str]],
    ) -> InputError:
        for files, what, name in ((genes, "genes", "features.tsv.gz"), (cells, "cells", "barcodes.tsv.gz")):
            if not files:
                msg = f"there is no table of {what} beside the matrix"
                return InputError(msg, code="E233", where=self._where, fix=f"put {name} into the same folder")
        n_rows, n_columns, _ = matrix.size
        sizes = ", ".join(f"{file.name} {len(tables[file])} lines" for file in (*genes, *cells)[:4])
        msg = f"the matrix is {n_rows} x {n_columns}, but {sizes}"
        return InputError(msg, code="E234", where=self._where, fix="copy all files of one run of Cell Ranger")


def find_matrix(folder: Location, names: list[str]) -> Location | None:
    """Return the Matrix Market file of a folder, ``None`` without one.

    Raises
    ------
    InputError
        E233 when there are several.
    """
    found = [name for name in names if MATRIX.match(name)]
    stems = {re.sub(r"\.gz\Z", "", name, flags=re.IGNORECASE) for name in found}
    if len(stems) > 1:
        usual = [name for name in found if re.match(r"matrix\.mtx(\.gz)?\Z", name)]
        if not usual:
            msg = f"{len(stems)} matrices in one folder ({some_of([shorten(name, 40) for name in sorted(stems)])})"
            raise InputError(
                msg, code="E233", where=folder.where, fix="name the .mtx file of each dataset as its `path`"
            )
        found = usual
    if len(found) > 1:  # a file and its copy in gzip
        sizes = {MatrixMarket(folder / name).size for name in found}
        if len(sizes) > 1:
            msg = f"{' and '.join(sorted(found))} differ"
            raise InputError(msg, code="E233", where=folder.where, fix="remove one of the two")
    return folder / sorted(found)[0] if found else None


def _beside(location: Location, names: list[str], pattern: re.Pattern[str], prefix: str) -> list[Location]:
    """Return the tables beside a matrix: those of its prefix, else all."""
    found = [name for name in names if pattern.match(name)]
    own = [name for name in found if prefix and name.startswith(prefix)]
    return [location.parent / name for name in own or found]


def _first_fields(lines: list[str]) -> list[str]:
    plain = not any(mark in line for line in lines[:1] for mark in '\t,"')
    return [line.strip() for line in lines] if plain else _column(split_lines(lines), 0)


def _column(rows: list[list[str]], place: int) -> list[str]:
    return [row[place].strip() if place < len(row) else "" for row in rows]


def _fitting(
    tables: dict[Location, list[str]], genes: list[Location], cells: list[Location], n_genes: int, n_cells: int
) -> tuple[list[Location], list[Location]] | None:
    """Return the tables with one line per gene and cell, header aside; ``None`` where either is missing."""
    found_genes = [file for file in genes if len(tables[file]) - n_genes in {0, 1}]
    found_cells = [file for file in cells if len(tables[file]) - n_cells in {0, 1}]
    return (found_genes, found_cells) if found_genes and found_cells else None


def _readers(rows: list[list[str]], columns: dict[int, str]) -> dict[str, Callable[[], NDArray[Any]]]:
    return {name: partial(_typed, rows, place) for place, name in columns.items() if name}


def _typed(rows: list[list[str]], place: int) -> NDArray[Any]:
    """Return numbers where all are numbers, else text."""
    values = _column(rows, place)
    try:
        return np.array([float(value) if value else np.nan for value in values])
    except ValueError:
        return np.array(values, dtype=np.str_)
