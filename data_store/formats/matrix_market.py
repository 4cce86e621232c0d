"""Matrices in Matrix Market files: one line per count, streamed where lines are in order of cells.

Legend: V counts.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from pyarrow import csv

from musegnn.data_store.blocks import windows
from musegnn.data_store.formats.arrays import cut_rows, refuse_large
from musegnn.data_store.formats.text_files import open_text
from musegnn.errors import InputError
from musegnn.text import shorten

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from musegnn.data_store.formats.container import Access, Part
    from musegnn.data_store.location import Location

BLOCK_BYTES = 2**20
SAMPLE_BYTES = 2**16
COPY = "copy or download the file again"
LINE = re.compile(rb"\s*(\d+)\s+(\d+)(?:\s+([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|nan|[-+]?inf))?\s*\Z", re.IGNORECASE)


def _number(text: bytes) -> float:
    """Return a value of the sample, NaN for text that is none: reading refuses it with its line."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


class MatrixMarket:
    """The matrix of a Matrix Market file.

    Parameters
    ----------
    location
        The file, plain or gzip.
    cells_first
        Whether its rows are cells; those of 10x are genes.

    Raises
    ------
    InputError
        E230 for other files, E235 for kinds of matrices that are no counts.
    """

    def __init__(self, location: Location, *, cells_first: bool = False) -> None:
        self._location, self._cells_first = location, cells_first
        with open_text(location) as file:
            self._field, self.size, self._skip = _read_header(file, location)
            sample = file.read(SAMPLE_BYTES)
        lines = sample[: sample.rfind(b"\n") + 1] or sample
        self._regular = re.search(rb"  |\t|^ | \r?$", lines, re.MULTILINE) is None
        rows, columns, n_entries = self.size
        self.shape = (rows, columns) if cells_first else (columns, rows)
        self.n_entries: int | None = n_entries
        self.lengths: NDArray[np.int64] | None = None
        first = [match for line in lines.splitlines() if (match := LINE.match(line))]
        self.access: Access = "sequential" if self._is_by_cell(first) else "columns"
        self._sample = np.array([1.0 if match[3] is None else _number(match[3]) for match in first])
        order = "in order of cells" if self.access == "sequential" else "not in order of cells"
        self.storage = f"Matrix Market, {self._field}, {order}"

    def rows(self, first: int, last: int, rows: int) -> Iterator[Part]:
        """Stream rows; see :meth:`Matrix.rows`."""
        if first >= last:
            return
        if self.access == "columns":
            yield from cut_rows(self._collect(first, last), first, rows)
            return
        place = first
        held = _Triplets.empty()
        for batch in self._batches(last):
            if batch.cell[0] < held.last(0) or (np.diff(batch.cell) < 0).any():
                msg = "lines are in order of cells at first, but not later"
                raise InputError(msg, code="E235", where=self._location.where, fix="sort its lines by cell")
            held = held.joined(batch.between(first, last))
            stop = min(held.last(place), last)  # the cells before the newest are complete
            if stop > place:
                yield from held.parts(place, stop, rows)
                held, place = held.between(stop, last), stop
        yield from held.parts(place, last, rows)

    def sample(self) -> NDArray[Any]:
        """Return the values of the first lines."""
        return self._sample

    def transposed(self) -> MatrixMarket:
        """Return the matrix with rows and columns turned."""
        return MatrixMarket(self._location, cells_first=not self._cells_first)

    def _is_by_cell(self, first: list[re.Match[bytes]]) -> bool:
        """Return whether the first lines are in order of cells, with several genes per cell."""
        pairs = [(int(match[1]), int(match[2])) for match in first]
        place = 0 if self._cells_first else 1
        cells, genes = [pair[place] for pair in pairs], {pair[1 - place] for pair in pairs}
        one_gene = len(genes) == 1 and min(self.shape) > 1 and len(pairs) > 1
        return cells == sorted(cells) and not one_gene

    def _collect(self, first: int, last: int) -> sp.csr_matrix:
        """Read all lines, and keep those of the cells [first, last) as rows."""
        n = self.n_entries or 0
        refuse_large(16 * n * (last - first) / max(self.shape[0], 1), self._location.where)
        kept = [_Triplets.empty(), *(batch.between(first, last) for batch in self._batches(self.shape[0]))]
        cell = np.concatenate([part.cell for part in kept])
        order = np.argsort(cell, kind="stable")
        gene, value = (np.concatenate([getattr(part, key) for part in kept])[order] for key in ("gene", "value"))
        indptr = np.searchsorted(cell[order], np.arange(first, last + 1))
        # Duplicates stay, so that they are counted where all formats count them.
        return sp.csr_matrix((value, gene, indptr), shape=(last - first, self.shape[1]))

    def _batches(self, last: int) -> Iterator[_Triplets]:
        """Read the lines, up to that of the cell `last` where they are in order; check their number at the end."""
        where, seen = self._location.where, 0
        rows, columns, n_entries = self.size
        try:
            for batch in self._parse():
                a, b = batch[0], batch[1]
                if len(a) and (min(a.min(), b.min()) < 1 or a.max() > rows or b.max() > columns):
                    bad = int(np.flatnonzero((a < 1) | (b < 1) | (a > rows) | (b > columns))[0])
                    line = self._skip + seen + bad + 1
                    msg = f"line {line} names row {a[bad]} and column {b[bad]} of {rows} x {columns}"
                    fix = "number rows and columns from 1" if min(a[bad], b[bad]) == 0 else COPY
                    raise InputError(msg, code="E234", where=where, fix=fix)
                seen += len(a)
                cell, gene = (a, b) if self._cells_first else (b, a)
                if len(a):
                    yield _Triplets(cell - 1, (gene - 1).astype(np.int32), batch[2])
                if self.access == "sequential" and len(a) and last < self.shape[0] and cell[-1] > last:
                    return
        except pa.ArrowInvalid:
            raise self._bad_line() from None
        if seen != n_entries:
            if seen < n_entries:
                line = self._skip + seen
                msg = f"truncated: the header says {n_entries} lines of counts, the file ends with {seen}, line {line}"
                raise InputError(msg, code="E231", where=where, fix=COPY)
            msg = f"{seen} lines of counts, but the header says {n_entries}"
            raise InputError(msg, code="E234", where=where, fix=COPY)

    def _parse(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]]:
        """Parse the lines after the header."""
        kinds = {"row": pa.int64(), "column": pa.int64()}
        if self._field != "pattern":
            kinds["value"] = pa.int64() if self._field == "integer" else pa.float64()
        if self.n_entries == 0:
            return
        with open_text(self._location) as file:
            for _ in range(self._skip):
                file.readline()
            if not file.peek(1):
                return
            reader = csv.open_csv(
                pa.PythonFile(file if self._regular else _Squeezed(file), mode="r"),
                read_options=csv.ReadOptions(column_names=list(kinds), block_size=BLOCK_BYTES, use_threads=False),
                parse_options=csv.ParseOptions(delimiter=" ", quote_char=False),
                convert_options=csv.ConvertOptions(column_types=kinds, null_values=[]),
            )
            for batch in reader:
                columns = [column.to_numpy() for column in batch.columns]
                yield columns[0], columns[1], columns[2] if len(columns) == 3 else np.ones(len(columns[0]))

    def _bad_line(self) -> InputError:
        """Find the first line that cannot be read."""
        where, n_fields = self._location.where, 2 if self._field == "pattern" else 3
        with open_text(self._location) as file:
            for number, line in enumerate(file, start=1):
                match = LINE.match(line) if number > self._skip else None
                if number <= self._skip or (not line.strip() and number > self._skip + self.size[2]):
                    continue
                text = shorten(line.decode("utf-8", "replace").strip(), 40)
                if match is None or sum(part is not None for part in match.groups()) != n_fields:
                    if number <= self._skip + self.size[2] and not line.endswith(b"\n"):
                        msg = f"truncated: line {number} is {text!r}, and the header says {self.size[2]} lines"
                        return InputError(msg, code="E231", where=where, fix=COPY)
                    msg = f"line {number} is not a row, a column and a number: {text!r}"
                    return InputError(msg, code="E235", where=where, fix=COPY)
                if self._field == "integer" and re.fullmatch(rb"[-+]?\d+", match[3] or b"0") is None:
                    msg = f"the header says integers, but line {number} has {match[3].decode()}"
                    return InputError(msg, code="E235", where=where, fix="give raw counts, or correct the header")
        msg = "a line cannot be read"
        return InputError(msg, code="E235", where=where, fix=COPY)


class _Triplets:
    """Counts by line: cells and genes from 0, and values, each of shape (V,)."""

    def __init__(self, cell: NDArray[np.int64], gene: NDArray[np.int32], value: NDArray[Any]) -> None:
        self.cell, self.gene, self.value = cell, gene, value

    @classmethod
    def empty(cls) -> _Triplets:
        return cls(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int64))

    def last(self, otherwise: int) -> int:
        return int(self.cell[-1]) if len(self.cell) else otherwise

    def joined(self, other: _Triplets) -> _Triplets:
        if not len(self.cell):
            return other
        return _Triplets(
            np.concatenate([self.cell, other.cell]),
            np.concatenate([self.gene, other.gene]),
            np.concatenate([self.value, other.value]),
        )

    def between(self, first: int, last: int) -> _Triplets:
        """Return those of the cells [first, last)."""
        keep: Any  # a slice where lines are in order
        if len(self.cell) and (np.diff(self.cell) >= 0).all():
            keep = slice(*np.searchsorted(self.cell, [first, last]).tolist())
        else:
            keep = (self.cell >= first) & (self.cell < last)
        return _Triplets(self.cell[keep], self.gene[keep], self.value[keep])

    def parts(self, first: int, last: int, rows: int) -> Iterator[Part]:
        """Cut the cells [first, last), which are in order, into parts."""
        indptr = np.searchsorted(self.cell, np.arange(first, last + 1))
        for a, b in windows(indptr, rows):
            inside = slice(int(indptr[a]), int(indptr[b]))
            yield first + a, indptr[a : b + 1] - indptr[a], self.gene[inside], self.value[inside]


class _Squeezed:
    """A file of lines whose fields have one space between them."""

    closed = False

    def __init__(self, file: io.BufferedReader) -> None:
        self._file, self._held = file, b""

    def readable(self) -> bool:
        return True

    def read(self, size: int) -> bytes:
        if not self._held:
            lines = self._file.read(size) + self._file.readline()
            self._held = re.sub(rb"(?m)^ | (?=\r?$)", b"", re.sub(rb"[ \t]+", b" ", lines))
        found, self._held = self._held[:size], self._held[size:]
        return found

    def close(self) -> None:
        self._file.close()


def _read_header(file: io.BufferedReader, location: Location) -> tuple[str, tuple[int, int, int], int]:
    """Return the kind of values, numbers of rows, columns and lines, and the number of lines of the header."""
    banner = file.readline(1000).decode("utf-8", "replace").lower().split()
    if banner[:1] != ["%%matrixmarket"]:
        msg = "not a Matrix Market file"
        raise InputError(msg, code="E230", where=location.where, fix=COPY)
    kinds = {
        "integer": "integer",
        "real": "real",
        "double": "real",
        "pattern": "pattern",
        "unsigned-integer": "integer",
    }
    if banner[1:3] != ["matrix", "coordinate"] or banner[4:] != ["general"] or banner[3] not in kinds:
        msg = f"a Matrix Market file of the kind `{shorten(' '.join(banner[1:]), 50)}`"
        fix = "write it as `matrix coordinate integer general`"
        raise InputError(msg, code="E235", where=location.where, fix=fix)
    number = 1
    for line in iter(lambda: file.readline(100_000), b""):
        number += 1
        if line.startswith(b"%") or not line.strip():
            continue
        sizes = line.split()
        if len(sizes) == 3 and all(size.isdigit() for size in sizes):
            return kinds[banner[3]], (int(sizes[0]), int(sizes[1]), int(sizes[2])), number
        break
    msg = f"line {number} should hold the numbers of rows, columns and counts"
    raise InputError(msg, code="E231", where=location.where, fix=COPY)
