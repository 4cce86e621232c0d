"""Counts split by the labels of cells: each range of a source is read once and written by label to one file.

A piece is the file of one range: a ``.npz`` archive, uncompressed. The cells of a label lie in pages of some 2^20 to
2^22 counts, each with its CRC-32, so that reading a range of a label costs in proportion to it and finds damage. Pieces
are scratch files, synchronised to disk before :func:`pack` returns. Who keeps a :class:`Piece` from one process to the
next asks :meth:`Piece.is_whole` first, and packs the range again where the file is missing or differs.

    counts       bytes of one page after another: row pointers int32, columns uint16 (int32 above 2^16 genes), and
                 counts uint8, uint16 or int32, whichever holds them
    pages.npy    (number of pages, 6) int64: label, cells, counts, first byte, bytes per count, CRC-32

Legend: C cells of the source, L labels, n cells of a label, d spatial dimensions.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from musegnn.data_store.atomic_files import atomic_file
from musegnn.data_store.blocks import check_range, cut_blocks
from musegnn.data_store.validate import check_structure
from musegnn.errors import InputError
from musegnn.text import one_line, short_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from musegnn.data_store.count_source import CountSource

PAGE_ENTRIES = 2**20
PAGE_CELLS = 2**18
DAMAGE = (zipfile.BadZipFile, OSError, RuntimeError, KeyError, ValueError, EOFError, OverflowError, struct.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One file of counts by label: cells and counts of each label, shape (L,), and the size and CRC-32 of the file."""

    path: Path
    n_cells: NDArray[np.int64]
    n_entries: NDArray[np.int64]
    size: int
    crc32: int

    def is_whole(self) -> bool:
        """Return whether the file is there with the bytes that were written."""
        try:
            return _measure(self.path) == (self.size, self.crc32)
        except OSError:
            return False


def pack(
    source: CountSource, codes: NDArray[np.int32], n_labels: int, start: int, stop: int, rows: int, path: Path
) -> Piece:
    """Read the cells [start, stop) of a source, check them, and write their counts by label.

    Memory is in proportion to the range and to ``n_labels`` pages. Equal counts and labels give equal bytes.

    Parameters
    ----------
    source
        Counts of C cells.
    codes
        Label of every cell of the source, shape (C,), in [-1, L); -1 leaves the cell out.
    n_labels
        Number of labels L.
    start, stop
        Range of cells.
    rows
        Cells that are read at a time.
    path
        File to write or replace, in an existing folder.

    Raises
    ------
    InputError
        When a value in the range is not a count; nothing is written then.
    WriteError
        E140 when the disk is full, E292 when the file cannot be written.
    ValueError
        For codes of another shape or range.
    """
    if codes.shape != (source.n_cells,) or (len(codes) and not -1 <= codes.min() <= codes.max() < n_labels):
        msg = f"expected codes in [-1, {n_labels}) of {source.n_cells} cells, got shape {codes.shape}"
        raise ValueError(msg)
    with atomic_file(path) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("counts", "w", force_zip64=True) as file:
            pages = _Pages(file, n_labels, _index_type(source.n_genes))
            for position, block in source.blocks(rows, start=start, stop=stop):
                code = codes[position : position + block.shape[0]]
                order = np.argsort(code, kind="stable")
                ordered = block if (code[1:] >= code[:-1]).all() else block[order]
                bounds = np.searchsorted(code[order], np.arange(n_labels + 1))
                for label in np.flatnonzero(np.diff(bounds)).tolist():
                    pages.add(label, ordered, bounds[label], bounds[label + 1])
            table = pages.finish()
        with archive.open("pages.npy", "w") as file:
            np.lib.format.write_array(file, table, version=(1, 0), allow_pickle=False)
    n_cells, n_entries = np.zeros((2, n_labels), dtype=np.int64)
    np.add.at(n_cells, table[:, 0], table[:, 1])
    np.add.at(n_entries, table[:, 0], table[:, 2])
    size, crc32 = _measure(path)
    return Piece(path=path, n_cells=n_cells, n_entries=n_entries, size=size, crc32=crc32)


def _measure(path: Path) -> tuple[int, int]:
    size = crc32 = 0
    with path.open("rb") as file:
        while part := file.read(2**20):
            size, crc32 = size + len(part), zlib.crc32(part, crc32)
    return size, crc32


class _Pages:
    """The counts of each label that are not written yet, and the table of the pages written."""

    def __init__(self, file: IO[bytes], n_labels: int, index_type: np.dtype[Any]) -> None:
        self._file = file
        self._index_type = index_type
        self._held: list[list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]] = [[] for _ in range(n_labels)]
        self._size = np.zeros((n_labels, 2), dtype=np.int64)
        self._table: list[tuple[int, ...]] = []
        self._place = 0

    def add(self, label: int, block: sp.csr_matrix, first: int, last: int) -> None:
        """Add the rows [first, last) of a block to a label, and write its page when that is full."""
        inside = slice(block.indptr[first], block.indptr[last])
        data = block.data[inside]
        largest = int(data.max(initial=0))
        narrow = np.uint8 if largest < 2**8 else np.uint16 if largest < 2**16 else np.int32
        part = np.diff(block.indptr[first : last + 1]), block.indices[inside].astype(self._index_type)
        self._held[label].append((*part, data.astype(narrow)))
        self._size[label] += last - first, len(data)
        if (self._size[label] >= (PAGE_CELLS, PAGE_ENTRIES)).any():
            self._write(label)

    def finish(self) -> NDArray[np.int64]:
        """Write what is left, and return the table."""
        for label, held in enumerate(self._held):
            if held:
                self._write(label)
        return np.array(self._table, dtype="<i8").reshape(-1, 6)

    def _write(self, label: int) -> None:
        lengths, indices, data = (np.concatenate(parts) for parts in zip(*self._held[label], strict=True))
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        raw = b"".join(values.astype(values.dtype.newbyteorder("<")).tobytes() for values in (indptr, indices, data))
        self._file.write(raw)
        page = label, len(lengths), len(data), self._place, data.dtype.itemsize, zlib.crc32(raw)
        self._table.append(page)
        self._place += len(raw)
        self._held[label] = []
        self._size[label] = 0


def _index_type(n_genes: int) -> np.dtype[Any]:  # integers
    return np.dtype("<u2" if n_genes <= 2**16 else "<i4")


class PackedSource:
    """The cells of one label as a :class:`~musegnn.data_store.readers.CountSource` of their own.

    Blocks, coordinates and columns are those of a file that holds these cells alone. The object can be pickled; the
    pieces have to be seen where it is read.

    Parameters
    ----------
    source
        Counts that the pieces were made of.
    pieces
        Pieces of consecutive ranges that cover the source, in order.
    code
        Code of the label in the pieces.
    cells
        Cells of `source` with this label, ascending, shape (n,).
    by, stratum
        Column of ``obs`` and label, for the fingerprint; ``None`` where the pieces hold all cells, in another form.

    Raises
    ------
    ValueError
        When the pieces hold another number of cells.
    """

    def __init__(
        self,
        source: CountSource,
        pieces: Sequence[Piece],
        code: int,
        *,
        cells: NDArray[np.intp],
        by: str | None = None,
        stratum: str | None = None,
    ) -> None:
        self._source = source
        self.path, self.gene, self.gene_id = source.path, source.gene, source.gene_id
        self.mitochondrial = source.mitochondrial
        self.n_cells, self.n_genes = len(cells), source.n_genes
        self._pieces = [(piece.path, int(piece.n_cells[code])) for piece in pieces]
        self._code = code
        self._cells = cells
        self._by, self._stratum = by, stratum
        self.n_entries = sum(int(piece.n_entries[code]) for piece in pieces)
        if sum(n for _, n in self._pieces) != len(cells):
            msg = f"expected {len(cells)} cells of label {code}, got {[n for _, n in self._pieces]} in the pieces"
            raise ValueError(msg)

    @property
    def coords(self) -> NDArray[np.float64] | None:
        """Coordinates of these cells, shape (n, d), or ``None``."""
        coords = self._source.coords
        return None if coords is None else coords[self._cells]

    @property
    def warnings(self) -> list[str]:
        """Warnings of the source."""
        return self._source.warnings

    def obs(self, column: str) -> NDArray[Any]:  # text or float64
        """Return a column of the table of these cells; see :meth:`CountSource.obs`."""
        values: NDArray[Any] = self._source.obs(column)[self._cells]
        return values

    def fingerprint(self) -> dict[str, Any]:  # JSON
        """Return the fingerprint of the source, with the column and the label."""
        part = {} if self._by is None else {"by": self._by, "stratum": self._stratum}
        return self._source.fingerprint() | part

    def n_merged(self, start: int = 0, stop: int | None = None) -> int:
        """Return 0: duplicates were summed when the pieces were made."""
        del start, stop
        return 0

    def blocks(
        self, rows: int, *, start: int = 0, stop: int | None = None, validate: bool = True
    ) -> Iterator[tuple[int, sp.csr_matrix]]:
        """Read the cells [start, stop) in order; see :meth:`CountSource.blocks`.

        Values were checked when the pieces were made; a piece that is damaged or missing is E232.
        """
        start, stop = check_range(rows, start, stop, self.n_cells)
        yield from cut_blocks(self._parts(start, stop), rows, start=start)

    def _parts(self, start: int, stop: int) -> Iterator[sp.csr_matrix]:
        for path, n_cells in self._pieces:
            if start < min(n_cells, stop):
                yield from _read_pages(path, self._code, n_cells, self.n_genes, start, min(n_cells, stop))
            start, stop = max(start - n_cells, 0), stop - n_cells


def _read_pages(path: Path, code: int, n_cells: int, n_genes: int, start: int, stop: int) -> Iterator[sp.csr_matrix]:
    """Read the cells [start, stop) of the cells of a label in a piece."""
    where = short_path(path)
    try:
        with path.open("rb") as file:
            table, offset = _open_piece(file)
            pages = table[table[:, 0] == code]
            if int(pages[:, 1].sum()) != n_cells:
                msg = f"expected {n_cells} cells of label {code}, got {pages[:, 1].sum()}"
                raise ValueError(msg)
            for page in pages:
                size = int(page[1])
                a, b = max(start, 0), min(stop, size)
                if a < b:
                    indptr, indices, data = _read_page(file, offset, page, _index_type(n_genes))
                    check_structure(indptr, indices, data, n_genes, where=where)
                    inside = slice(indptr[a], indptr[b])
                    arrays = data[inside].astype(np.int32), indices[inside].astype(np.int32), indptr[a : b + 1]
                    yield sp.csr_matrix((*arrays[:2], arrays[2] - indptr[a]), shape=(b - a, n_genes))
                start, stop = start - size, stop - size
    except InputError:
        raise
    except DAMAGE as error:
        msg = f"a file of split counts is damaged or missing ({one_line(error, 80)})"
        raise InputError(msg, code="E232", where=where, fix="run the same command again to make it anew") from error


def _open_piece(file: IO[bytes]) -> tuple[NDArray[np.int64], int]:
    """Return the table of pages, whose checksum the archive holds, and the place of their bytes in the file."""
    with zipfile.ZipFile(file) as archive:
        counts, pages = archive.getinfo("counts"), archive.getinfo("pages.npy")
        if {counts.compress_type, pages.compress_type} != {zipfile.ZIP_STORED}:
            msg = "its members are compressed"
            raise zipfile.BadZipFile(msg)
        raw = io.BytesIO(archive.read(pages))
        np.lib.format.read_magic(raw)
        _, _, dtype = np.lib.format.read_array_header_1_0(raw)
        table = np.frombuffer(raw.read(), dtype=dtype).reshape(-1, 6)
    # Seeking inside a member reads everything before it, so pages are read past the archive.
    file.seek(counts.header_offset + 26)
    name, extra = struct.unpack("<HH", file.read(4))
    return table.astype(np.int64), counts.header_offset + 30 + name + extra


def _read_page(
    file: IO[bytes], offset: int, page: NDArray[np.int64], index_type: np.dtype[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:  # integers
    """Read row pointers, columns and counts of a page, and compare its checksum before anything in it is trusted."""
    _, n_cells, n_entries, first, itemsize, checksum = page.tolist()
    ends = np.cumsum([4 * (n_cells + 1), index_type.itemsize * n_entries, itemsize * n_entries]).tolist()
    file.seek(offset + first)
    raw = file.read(ends[2])
    if zlib.crc32(raw) != checksum:
        msg = "the checksum of a page does not match"
        raise zipfile.BadZipFile(msg)
    data_type = {1: "<u1", 2: "<u2", 4: "<i4"}[itemsize]
    return (
        np.frombuffer(raw[: ends[0]], "<i4"),
        np.frombuffer(raw[ends[0] : ends[1]], index_type),
        np.frombuffer(raw[ends[1] :], data_type),
    )
