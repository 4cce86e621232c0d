"""Dense tables in CSV or TSV, plain or gzip: a header, and a line per cell or gene that starts with its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from pyarrow import csv

from musegnn.data_store.formats.arrays import compress, cut_rows, refuse_large
from musegnn.data_store.formats.container import ColumnTable
from musegnn.data_store.formats.text_files import open_text, sniff_delimiter
from musegnn.data_store.names import decode_names
from musegnn.errors import InputError
from musegnn.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from musegnn.data_store.formats.container import Access, Matrix, Part, Table
    from musegnn.data_store.location import Location

BLOCK_BYTES = 2**20
MAX_BLOCK_BYTES = 16 * 2**20
LINES = 256
"""Fewest lines of a block: blocks of few lines and many columns are read slowly."""
NAME = "_name"


class TableContainer:
    """A table of cells x genes; its names are read on opening, which is a pass over the file.

    Raises
    ------
    InputError
        E230 when the file is no table of numbers, E234 for lines of other lengths.
    """

    format = "table"
    id_column = None

    def __init__(self, location: Location) -> None:
        self._location = location
        self.files = [location]
        with open_text(location) as file:
            header = file.readline()
            text = decode_names([header.rstrip(b"\r\n")], where=location.where, what="the header")[0]
            first = file.readline()
            self._delimiter = sniff_delimiter(text)
            columns = _fields(text, self._delimiter)
            n_fields = first.count(self._delimiter.encode()) + 1 if first else len(columns)
            if n_fields < 2 or not first:
                msg = "no table of counts: expected a header, and lines of a name and numbers"
                raise InputError(msg, code="E230", where=location.where, fix="see the formats in docs/inputs.md")
            # R writes no field above the names of rows.
            self._columns = columns if n_fields == len(columns) + 1 else columns[1:]
            if n_fields not in {len(columns), len(columns) + 1}:
                msg = f"the header has {len(columns)} fields, but line 2 has {n_fields}"
                raise InputError(msg, code="E234", where=location.where, fix="write the table anew")
            # One text of all names takes a quarter of the memory of as many pieces of bytes.
            end = self._delimiter.encode()
            names, longest = bytearray(first.partition(end)[0]), len(first)
            for line in file:
                if line.strip():
                    names += b"\n" + line.partition(end)[0]
                    longest = max(longest, len(line))
        text = decode_names([bytes(names)], where=location.where, what="the first column")[0]
        self._rows = [name.strip().strip('"') for name in text.split("\n")]
        self._block_bytes = max(BLOCK_BYTES, min(LINES * longest, MAX_BLOCK_BYTES), 4 * longest)

    def matrices(self) -> dict[str, tuple[int, int]]:
        """Return the shape of the one matrix."""
        return {"X": (len(self._rows), len(self._columns))}

    def matrix(self, layer: str) -> Matrix:
        """Return the matrix."""
        del layer
        return _TableMatrix(self, turned=False)

    def cells(self) -> Table:
        """Return the names of the lines."""
        return ColumnTable(self._rows, {}, self._location.where)

    def genes(self, layer: str) -> Table:
        """Return the names in the header."""
        del layer
        return ColumnTable(self._columns, {}, self._location.where)

    def coordinates(self) -> dict[str, tuple[int, ...]]:
        """Return nothing."""
        return {}

    def read_coordinates(self, key: str) -> NDArray[Any]:
        """Return nothing."""
        del key
        return np.zeros((0, 2))

    def read_lines(self) -> Iterator[NDArray[np.float64]]:
        """Read the numbers of all lines in order, some lines at a time."""
        names = [NAME, *(f"c{i}" for i in range(len(self._columns)))]
        kinds: dict[str, pa.DataType] = dict.fromkeys(names, pa.float64())
        kinds[NAME] = pa.string()
        seen = 0
        try:
            with open_text(self._location) as file:
                file.readline()
                reader = csv.open_csv(
                    pa.PythonFile(file, mode="r"),
                    read_options=csv.ReadOptions(column_names=names, block_size=self._block_bytes, use_threads=False),
                    parse_options=csv.ParseOptions(delimiter=self._delimiter),
                    convert_options=csv.ConvertOptions(column_types=kinds),
                )
                for batch in reader:
                    values = np.empty((batch.num_rows, len(self._columns)))
                    for place, column in enumerate(batch.columns[1:]):
                        values[:, place] = column.to_numpy(zero_copy_only=False)
                    seen += batch.num_rows
                    yield values
        except pa.ArrowInvalid as error:
            msg = f"a line after line {seen + 1} cannot be read ({one_line(error, 120)})"
            fix = "leave only names and raw counts in the table"
            raise InputError(msg, code="E235", where=self._location.where, fix=fix) from None
        if seen != len(self._rows):
            msg = f"{seen} lines of numbers, but {len(self._rows)} names"
            raise InputError(msg, code="E234", where=self._location.where, fix="write the table anew")

    @property
    def where(self) -> str:
        """The file for messages."""
        return self._location.where


class _TableMatrix:
    """The numbers of a table, or, `turned`, their transpose."""

    def __init__(self, table: TableContainer, *, turned: bool) -> None:
        self.n_entries: int | None = None
        self.lengths: NDArray[np.int64] | None = None
        self._table, self._turned = table, turned
        rows, columns = table.matrices()["X"]
        self.shape = (columns, rows) if turned else (rows, columns)
        self.access: Access = "columns" if turned else "sequential"
        self.storage = "dense, text"

    def rows(self, first: int, last: int, rows: int) -> Iterator[Part]:
        if first >= last:
            return
        if self._turned:
            yield from cut_rows(self._collect(first, last), first, rows)
            return
        place = 0
        for values in self._table.read_lines():
            a, b = max(first - place, 0), min(last - place, len(values))
            for start in range(a, b, rows):
                yield (place + start, *compress(values[start : min(start + rows, b)]))
            place += len(values)
            if place >= last and last < self.shape[0]:
                return

    def _collect(self, first: int, last: int) -> sp.csr_matrix:
        """Read all lines, each a gene, and keep the cells [first, last) as rows."""
        kept, size = [], 0
        for values in self._table.read_lines():
            part = sp.csr_matrix(values[:, first:last])
            size += 12 * part.nnz
            refuse_large(size, self._table.where)
            kept.append(part)
        return sp.vstack(kept, format="csr").T.tocsr()

    def sample(self) -> NDArray[Any]:
        return np.zeros(0)

    def transposed(self) -> _TableMatrix:
        return _TableMatrix(self._table, turned=not self._turned)


def _fields(line: str, delimiter: str) -> list[str]:
    return [field.strip().strip('"') for field in line.split(delimiter)]
