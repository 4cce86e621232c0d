"""Counts of a file or folder, opened anew for every pass.

Legend: C cells, G genes.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from musegnn.data_store.blocks import check_range, cut_blocks
from musegnn.data_store.description import count_layers
from musegnn.data_store.formats.opening import open_container
from musegnn.data_store.location import fingerprint
from musegnn.data_store.validate import CountCheck, raise_malformed
from musegnn.errors import InputError
from musegnn.text import shorten

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from numpy.typing import NDArray

    from musegnn.data_store.description import MatrixDescription
    from musegnn.data_store.formats.container import Access, Container, Matrix
    from musegnn.data_store.location import Location
    from musegnn.data_store.names import GeneNames


class FileSource:
    """Counts of a file or folder as a :class:`CountSource`; made by :func:`~musegnn.data_store.readers.open_matrix`.

    The object holds names and coordinates only and can be pickled; every pass opens the file anew.

    Attributes
    ----------
    description
        What the file holds, and what of it is used.
    access
        What a range of cells costs: ``rows``: in proportion to it; ``sequential``: all cells before it as well;
        ``columns``: a pass over the whole file, and memory.
    """

    def __init__(
        self,
        location: Location,
        description: MatrixDescription,
        names: GeneNames,
        *,
        mod: str | None,
        transpose: bool,
        stamps: dict[Location, tuple[int, str]],
        near: sp.csr_matrix | None = None,
    ) -> None:
        self._location, self.description = location, description
        self._mod, self._transpose, self._stamps = mod, transpose, stamps
        self.path: Path | str = location.path
        self.gene = names.gene
        self.gene_id = names.gene_id
        self.mitochondrial = names.mitochondrial
        self.n_cells = description.n_used
        self.n_genes = len(names.gene)
        self._names, self._near = names, near
        self.n_entries = description.n_entries if near is None else None  # a peak may be near several genes
        self.coords = description.coords
        # Many small requests to a server take longer than one pass, and each cell is asked for several times.
        self.is_remote = location.is_remote
        self.access: Access = (
            "sequential" if location.is_remote and description.access == "rows" else description.access
        )
        self._warnings = description.warnings + names.warnings
        self._merged: dict[tuple[int, int], int] = {}
        self._fingerprint: dict[str, Any] | None = None

    @property
    def warnings(self) -> list[str]:
        """Lines ``W###: ...`` of what was seen on opening."""
        return list(self._warnings)

    def n_merged(self, start: int = 0, stop: int | None = None) -> int:
        """Return the duplicates that were summed in this range; see :meth:`CountSource.n_merged`."""
        return self._merged.get((start, self.n_cells if stop is None else stop), 0)

    def blocks(
        self, rows: int, *, start: int = 0, stop: int | None = None, validate: bool = True
    ) -> Iterator[tuple[int, sp.csr_matrix]]:
        """Read the cells [start, stop) in order; see :meth:`CountSource.blocks`."""
        start, stop = check_range(rows, start, stop, self.n_cells)
        self._check_unchanged()
        check = CountCheck(self._location.where, self.description.names, values=validate)
        with self._open() as container:
            yield from cut_blocks(self._parts(self._matrix(container), check, rows, start, stop), rows, start=start)
            if check.failed:
                check.finish(elsewhere=self._counts_elsewhere(container))
        self._check_unchanged()
        if validate:
            self._merged[start, stop] = check.n_merged

    def _open(self) -> AbstractContextManager[Container]:
        return open_container(self._location, mod=self._mod, transpose=self._transpose)

    def _matrix(self, container: Container) -> Matrix:
        matrix = container.matrix(self.description.layer)
        if matrix.shape != self.description.shape:
            raise self._changed()
        return matrix

    def _parts(self, matrix: Matrix, check: CountCheck, rows: int, start: int, stop: int) -> Iterator[sp.csr_matrix]:
        """Read the rows of the file that hold these cells; those of cells left out belong to the cell before."""
        used_cells, used_genes = self.description.used_cells, self.description.used_genes
        first, last = start, stop
        if used_cells is not None:
            bounds = np.append(np.flatnonzero(used_cells), self.description.shape[0])
            bounds[0] = 0
            first, last = int(bounds[start]), int(bounds[stop])
        for place, indptr, indices, data in matrix.rows(first, last, rows):
            part = check.add(place, indptr, indices, data)
            if part is None:
                continue
            if used_cells is not None:
                part = part[used_cells[place : place + part.shape[0]]]
            yield take_genes(part, used_genes, self._names, near=self._near)

    def take_cells(self, cells: NDArray[np.intp]) -> sp.csr_matrix:
        """Return the counts of some cells, ascending, in the form of :meth:`blocks`; their values are not checked."""
        check = CountCheck(self._location.where, self.description.names, values=False)
        ends = np.flatnonzero(np.diff(cells, append=-1) != 1) + 1
        with self._open() as container:
            matrix = self._matrix(container)
            parts = [
                part
                for first, last in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)
                for part in self._parts(matrix, check, last - first, int(cells[first]), int(cells[last - 1]) + 1)
            ]
        return sp.vstack(parts, format="csr") if parts else sp.csr_matrix((0, self.n_genes), dtype=np.int32)

    def cell_table(self) -> tuple[list[str], NDArray[np.int64] | None]:
        """Return the names of the cells, and the stored entries of each where they are known, shape (C,)."""
        with self._open() as container:
            names, lengths = container.cells().names(), self._matrix(container).lengths
        used = self.description.used_cells
        if used is None:
            return names, lengths
        return [names[i] for i in np.flatnonzero(used)], None if lengths is None else lengths[used]

    def obs(self, column: str) -> NDArray[Any]:  # text or float64
        """Return a column of the table of cells; see :meth:`CountSource.obs`."""
        self._check_unchanged()
        with self._open() as container:
            values = container.cells().values(column)
        if values.shape != (self.description.shape[0],):
            msg = f"`obs/{shorten(column, 30)}` has shape {values.shape}, expected {self.description.shape[0]} rows"
            raise_malformed(msg, self._location.where)
        return values if self.description.used_cells is None else values[self.description.used_cells]

    def fingerprint(self) -> dict[str, Any]:  # JSON
        """Return name, size and SHA-256 of the file, or of all files of a folder that are read."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self._location, list(self._stamps))
            self._fingerprint |= self._options() | self._recognised()
            self._check_unchanged()
        return dict(self._fingerprint)

    def _options(self) -> dict[str, Any]:  # JSON
        """Return what decides how the input is read, where it is not what is usual."""
        options = {"mod": self._mod, "transpose": self._transpose, "gene_names": self.description.name_key}
        return {key: value for key, value in options.items() if value}

    def _recognised(self) -> dict[str, Any]:  # JSON
        """Return a digest of the cells and genes that are used, where these are not simply all that the file names."""
        used = (self.description.used_cells, self.description.used_genes)
        digests = [hashlib.sha256(mask.tobytes()).hexdigest() for mask in used if mask is not None]
        digests += [] if self._names.digest is None else [self._names.digest]
        if self._near is not None:
            parts = (self._near.indptr.astype("<i8"), self._near.indices.astype("<i8"), self.gene)
            digests += [hashlib.sha256(part.tobytes()).hexdigest() for part in parts]
        return {"used": digests} if digests else {}

    def _check_unchanged(self) -> None:
        for file, stamp in self._stamps.items():
            try:
                same = file.stamp() == stamp
            except InputError as error:
                if not isinstance(error.__cause__, FileNotFoundError):
                    raise
                same = False
            if not same:
                raise self._changed()

    def _changed(self) -> InputError:
        msg = "the file changed while it was read"
        return InputError(msg, code="E291", where=self._location.where, fix="start again when nothing writes it")

    def _counts_elsewhere(self, container: Container) -> str:
        """Return the advice that names another matrix of the file with raw counts, if there is one."""
        found = count_layers(container, besides=self.description.layer)
        if found and found[0] == "X":
            return "leave `layer` out: X holds counts"
        return f"set `layer: {found[0]}`, which holds raw counts" if found else ""


def take_genes(
    part: sp.csr_matrix,
    columns: NDArray[np.int64] | None,
    names: GeneNames,
    *,
    near: sp.csr_matrix | None = None,
) -> sp.csr_matrix:
    """Return the counts of genes from those of all columns of a matrix, canonical int32 CSR like `part`.

    `columns` are those that are used (``None``: all), `near` says which of these count towards which gene where they
    are peaks, and `names` which genes are copies of one.
    """
    if columns is not None:
        part = part[:, columns]
    if near is not None:
        part = (part @ near).tocsr()
        part.sort_indices()
    if names.place is None:
        return part
    indices = names.place[part.indices].astype(np.int32)
    moved = sp.csr_matrix((part.data, indices, part.indptr), (part.shape[0], len(names.gene)))
    moved.sum_duplicates()
    return moved
