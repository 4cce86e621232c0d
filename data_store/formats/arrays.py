"""Matrices in the arrays of HDF5 or zarr, as :class:`~musegnn.data_store.formats.container.Matrix`.

Legend: C cells, G genes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from musegnn.data_store.blocks import windows
from musegnn.data_store.hdf5 import get_node, is_group
from musegnn.data_store.validate import check_pointers, check_structure, raise_malformed
from musegnn.errors import InputError
from musegnn.text import shorten
from musegnn.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from musegnn.data_store.formats.container import Access, Part

DENSE_SLICE_BYTES = 64 * 2**20
MAX_COLUMN_BYTES = 8 * 2**30
LARGE_CHUNK_BYTES, SMALL_CHUNK_BYTES = 64 * 2**20, 2**20
RANGE_CELLS = 16384
"""Cells that a task of a build reads."""
SAMPLE = 100_000
CACHED_VALUES = 2**19
"""Dense values that are looked through at a time."""


class CompressedMatrix:
    """A compressed sparse matrix: `data`, `indices` and `indptr` in a group.

    Parameters
    ----------
    group, shape
        Group of the three vectors; cells and genes.
    by_column
        Whether genes, not cells, are compressed.
    where, label
        File and name for messages.
    """

    def __init__(self, group: Any, shape: tuple[int, int], *, by_column: bool, where: str, label: str) -> None:
        self._group, self.shape, self._where, self._label, self._by_column = group, shape, where, label, by_column
        for part, kinds in (("indptr", "iu"), ("indices", "iu"), ("data", "biuf")):
            array = get_node(group, part, where)
            if is_group(array) or array.ndim != 1 or array.dtype.kind not in kinds:
                raise_malformed(f"malformed sparse matrix: `{label}/{part}` is not a vector of numbers", where)
        data, indices = group["data"], group["indices"]
        self.n_entries: int | None = int(indices.shape[0])
        self.storage = f"{'csc' if by_column else 'csr'}, {_storage(data)}"
        self.access: Access = "columns"
        self.lengths: NDArray[np.int64] | None = None
        if not by_column:
            self._indptr = group["indptr"][:].astype(np.int64)
            check_pointers(self._indptr, shape[0], indices.shape[0], data.shape[0], where=where)
            self.lengths = np.diff(self._indptr)
            typical = RANGE_CELLS * data.shape[0] / max(shape[0], 1)  # entries of the ranges in which builds read
            self.access = "sequential" if _has_large_chunks(data, typical) else "rows"

    def rows(self, first: int, last: int, rows: int) -> Iterator[Part]:
        """Stream rows; see :meth:`Matrix.rows`."""
        if first >= last:
            return
        if self.access == "columns":
            part = self._rows_of_columns(first, last)
            yield from cut_rows(part, first, rows)
            return
        indptr = self._indptr[first : last + 1]
        indices, data = _Ahead(self._group["indices"], indptr[-1]), _Ahead(self._group["data"], indptr[-1])
        for a, b in windows(indptr, rows):
            start, stop = int(indptr[a]), int(indptr[b])
            yield first + a, indptr[a : b + 1] - start, indices.read(start, stop), data.read(start, stop)

    def sample(self) -> NDArray[Any]:
        """Return the first and last values."""
        data = self._group["data"]
        n = data.shape[0]
        return np.concatenate([data[: min(n, SAMPLE)], data[max(0, n - SAMPLE) :]])

    def transposed(self) -> CompressedMatrix:
        """Return the matrix with rows and columns turned."""
        shape, by_column = (self.shape[1], self.shape[0]), not self._by_column
        return CompressedMatrix(self._group, shape, by_column=by_column, where=self._where, label=self._label)

    def _rows_of_columns(self, first: int, last: int) -> sp.csr_matrix:
        """Collect the rows [first, last) of compressed columns, reading 2^22 entries at a time."""
        matrix, shape, where = self._group, self.shape, self._where
        n_entries = matrix["indices"].shape[0]
        itemsize = sum(matrix[part].dtype.itemsize for part in ("data", "indices"))
        refuse_large(itemsize * n_entries * (last - first) / max(shape[0], 1), where)
        indptr = matrix["indptr"][:].astype(np.int64)
        check_pointers(indptr, shape[1], n_entries, matrix["data"].shape[0], where=where, row="column")
        lengths = np.zeros(shape[1], dtype=np.int64)
        rows, values = [], []
        for a, b in windows(indptr, shape[1]):
            inside = slice(int(indptr[a]), int(indptr[b]))
            indices, data = matrix["indices"][inside], matrix["data"][inside]
            starts = indptr[a : b + 1] - indptr[a]
            check_structure(starts, indices, data, shape[0], where=where, first_cell=a, row="column")
            if (first, last) != (0, shape[0]):
                wanted = np.flatnonzero((indices >= first) & (indices < last))
                starts, indices, data = np.searchsorted(wanted, starts), indices[wanted] - first, data[wanted]
            lengths[a:b] = np.diff(starts)
            rows.append(indices.astype(np.int32, copy=False))
            values.append(data)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        columns = (_joined(values), _joined(rows), starts.astype(np.int32 if starts[-1] < 2**31 else np.int64))
        return sp.csc_matrix(columns, shape=(last - first, shape[1])).tocsr()


class DenseMatrix:
    """A dense matrix in one array, of cells x genes or, `transposed`, of genes x cells."""

    def __init__(self, array: Any, *, transposed: bool, where: str, label: str) -> None:
        if array.ndim != 2 or array.dtype.kind not in "biuf":
            raise_malformed(f"`{shorten(label, 40)}` holds {array.dtype}, expected a matrix of numbers", where)
        self._array, self._transposed, self._where, self._label = array, transposed, where, label
        rows, columns = (int(n) for n in array.shape)
        self.shape = (columns, rows) if transposed else (rows, columns)
        self.storage = f"dense, {_storage(array)}"
        typical = RANGE_CELLS * self.shape[1]
        self.access: Access = "sequential" if _has_large_chunks(array, typical) else "rows"
        self.n_entries: int | None = None
        self.lengths: NDArray[np.int64] | None = None

    def rows(self, first: int, last: int, rows: int) -> Iterator[Part]:
        """Stream rows; see :meth:`Matrix.rows`."""
        n_columns, array = self.shape[1], self._array
        step = max(1, min(rows, DENSE_SLICE_BYTES // max(1, n_columns * array.dtype.itemsize)))
        tall = int(array.chunks[int(self._transposed)]) if array.chunks else 1
        while first < last:
            stop = min(first + step, last)
            aligned = stop // tall * tall
            if first < aligned and stop < last:
                stop = aligned
            if self._transposed:
                yield (first, *compress(array[:, first:stop].T))
            elif array.chunks:
                yield (first, *compress(array[first:stop]))
            else:
                yield (first, *compress(array, first, stop))
            first = stop

    def sample(self) -> NDArray[Any]:
        """Return the values of the first rows."""
        n = max(1, SAMPLE // max(1, self.shape[1]))
        values: NDArray[Any] = (self._array[:, :n] if self._transposed else self._array[:n]).ravel()
        return values

    def transposed(self) -> DenseMatrix:
        """Return the matrix with rows and columns turned."""
        return DenseMatrix(self._array, transposed=not self._transposed, where=self._where, label=self._label)


def compress(
    values: Any,  # dense rows in memory or in an array of HDF5
    first: int = 0,
    last: int | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[Any]]:
    """Return row pointers, columns and values of the nonzeros of dense rows, looked for in pieces that caches hold."""
    n_rows, n_columns = (len(values) if last is None else last) - first, int(values.shape[1])
    step = max(1, CACHED_VALUES // max(1, n_columns))
    indptr = np.zeros(n_rows + 1, dtype=np.int64)
    columns, found = [np.zeros(0, dtype=np.int32)], [np.zeros(0, dtype=values.dtype)]
    for place in range(0, n_rows, step):
        piece = values[first + place : first + min(place + step, n_rows)]
        flat = piece.ravel()
        # Where at most a tenth of a mask is set numpy takes a search that is three times as slow as its loop.
        padding = flat.size // 8
        mask = np.ones(flat.size + padding, dtype=np.bool_)
        np.not_equal(flat, 0, out=mask[: flat.size])
        places = np.flatnonzero(mask)
        places = places[: len(places) - padding]
        starts = np.arange(len(piece) + 1) * n_columns
        ends = np.searchsorted(places, starts)
        columns.append((places - np.repeat(starts[:-1], np.diff(ends))).astype(np.int32))
        found.append(flat[places])
        indptr[place + 1 : place + len(piece) + 1] = indptr[place] + ends[1:]
    return indptr, np.concatenate(columns), np.concatenate(found)


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts or [np.zeros(0, dtype=np.int32)])


def cut_rows(part: sp.csr_matrix, first: int, rows: int) -> Iterator[Part]:
    """Cut rows in memory, the first of which has the number `first`."""
    for a, b in windows(part.indptr, rows):
        inside = slice(part.indptr[a], part.indptr[b])
        yield first + a, part.indptr[a : b + 1] - part.indptr[a], part.indices[inside], part.data[inside]


def refuse_large(size: float, where: str) -> None:
    """Refuse to turn columns of so many bytes into rows in memory (E226)."""
    if 2 * size > MAX_COLUMN_BYTES:
        msg = f"the matrix is stored by genes and takes {format_bytes(size)}"
        raise InputError(msg, code="E226", where=where, fix="write the file with adata.X = adata.X.tocsr()")


class _Ahead:
    """Read ranges of a vector in order, every chunk once."""

    def __init__(self, array: Any, end: int) -> None:
        self._array, self._end = array, int(end)
        self._chunk = int(array.chunks[0]) if array.chunks else 1
        self._first, self._held = 0, np.zeros(0, dtype=array.dtype)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        held = self._held[start - self._first :] if self._first <= start else self._held[:0]
        have = start + len(held)
        if have < stop:
            ahead = min(-(-stop // self._chunk) * self._chunk, max(self._end, stop))
            new = self._array[have:ahead]
            held = np.concatenate([held, new]) if len(held) else new
        self._first, self._held = start, held
        values: NDArray[Any] = held[: stop - start]
        return values


def _has_large_chunks(array: Any, typical: float) -> bool:
    """Return whether reading `typical` values in a row means to unpack many more."""
    if not array.chunks or "no compression" in _storage(array):
        return False
    chunk = float(np.prod(array.chunks, dtype=np.float64))
    return chunk * array.dtype.itemsize > LARGE_CHUNK_BYTES or (
        chunk > 2 * typical and chunk * array.dtype.itemsize > SMALL_CHUNK_BYTES
    )


def _storage(array: Any) -> str:
    if not array.chunks:
        return f"{array.dtype}, one piece"
    compression = getattr(array, "compression", None)
    if compression is None:
        codecs = getattr(array, "compressors", None) or ()
        names = [str(getattr(c, "codec_id", type(c).__name__)).removesuffix("Codec").lower() for c in codecs]
        compression = ", ".join(names) or "no compression"
    return f"{array.dtype}, chunks of {'x'.join(str(n) for n in array.chunks)}, {compression}"
