"""Sources of raw counts: AnnData files, and arrays in memory.

Legend: C cells, G genes, d spatial dimensions.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from musegnn.data_store.blocks import check_range, cut_blocks, windows
from musegnn.data_store.commit import file_digest
from musegnn.data_store.count_source import MIN_CELLS, CountSource
from musegnn.data_store.h5ad import H5adLayout, count_matrices, inspect, read_rows
from musegnn.data_store.hdf5 import no_column, open_file, read_column
from musegnn.data_store.names import resolve_genes
from musegnn.data_store.validate import CountCheck
from musegnn.errors import InputError
from musegnn.text import short_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["ArraySource", "CountSource", "H5adSource", "open_h5ad"]


class H5adSource:
    """Counts of an ``.h5ad`` file as a :class:`CountSource`; made by :func:`open_h5ad`.

    The object holds names and coordinates only and can be pickled; every pass opens the file anew.

    Attributes
    ----------
    by_column
        Whether every range costs a pass over the whole file, since it is stored by columns.
    """

    def __init__(
        self, layout: H5adLayout, gene: NDArray[np.str_], gene_id: NDArray[np.str_], warnings: list[str]
    ) -> None:
        self._layout = layout
        self.path = layout.path
        self.gene = gene
        self.gene_id = gene_id
        self.n_cells = layout.n_used
        self.n_genes = len(gene)
        self.n_entries = layout.n_entries
        self.coords = layout.coords
        self.by_column = layout.kind == "csc"
        self._warnings = warnings
        self._merged: dict[tuple[int, int], int] = {}
        self._sha256: str | None = None

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
        check = CountCheck(short_path(self.path), self._layout.names, values=validate)
        yield from cut_blocks(self._parts(check, rows, start, stop), rows, start=start)
        if check.failed:
            check.finish(elsewhere=self._counts_elsewhere())
        self._check_unchanged()
        if validate:
            self._merged[start, stop] = check.n_merged

    def _parts(self, check: CountCheck, rows: int, start: int, stop: int) -> Iterator[sp.csr_matrix]:
        """Read the rows of the file that hold these cells; those of cells left out belong to the cell before."""
        layout = self._layout
        first, last = start, stop
        if layout.used_cells is not None:
            bounds = np.append(np.flatnonzero(layout.used_cells), layout.shape[0])
            bounds[0] = 0
            first, last = int(bounds[start]), int(bounds[stop])
        for place, indptr, indices, data in read_rows(layout, first, last, rows):
            part = check.add(place, indptr, indices, data)
            if part is None:
                continue
            if layout.used_cells is not None:
                part = part[layout.used_cells[place : place + part.shape[0]]]
            if layout.used_genes is not None:
                part = part[:, layout.used_genes]
            yield part

    def obs(self, column: str) -> NDArray[Any]:  # text or float64
        """Return a column of ``obs``; see :meth:`CountSource.obs`."""
        self._check_unchanged()
        with open_file(self.path) as file:
            values = read_column(file, "obs", column, self._layout.shape[0], short_path(self.path))
        return values if self._layout.used_cells is None else values[self._layout.used_cells]

    def fingerprint(self) -> dict[str, Any]:  # JSON
        """Return name, size and SHA-256 of the file."""
        if self._sha256 is None:
            self._sha256 = file_digest(self.path)
            self._check_unchanged()
        return {"name": self.path.name, "bytes": self._layout.stamp[0], "sha256": self._sha256}

    def _check_unchanged(self) -> None:
        try:
            stat = self.path.stat()
            same = (stat.st_size, stat.st_mtime_ns) == self._layout.stamp
        except FileNotFoundError:
            same = False
        if not same:
            msg = "the file changed while it was read"
            raise InputError(msg, code="E291", where=short_path(self.path), fix="start again when nothing writes it")

    def _counts_elsewhere(self) -> str:
        """Return the advice that names another matrix of the file with raw counts, if there is one."""
        with open_file(self.path) as file:
            found = count_matrices(file, besides=self._layout.key)
        if found and found[0] == "X":
            return "leave `layer` out: X holds counts"
        return f"set `layer: {found[0]}`, which holds raw counts" if found else ""


def open_h5ad(
    path: Path | str,
    *,
    layer: str | None = None,
    gene_id_key: str | None = None,
    spatial_key: str | None = None,
    min_cells: int = MIN_CELLS,
) -> H5adSource:
    """Open an AnnData file and check its structure; counts are checked when they are read.

    Compressed sparse rows and dense matrices are streamed; compressed sparse columns are turned into rows in memory,
    those of the range that is read, with a warning. Where a Visium file marks spots that are not under tissue, or a
    multi-modal file other features than genes, these are left out with a warning.

    Parameters
    ----------
    path
        The ``.h5ad`` file.
    layer
        ``None`` for ``X``, the name of an entry of ``layers``, or ``raw`` for ``raw.X``.
    gene_id_key
        Column of ``var`` with gene identifiers, used where names are not unique.
    spatial_key
        Entry of ``obsm`` with coordinates; required for spatial data, ``None`` reads none.
    min_cells
        Smallest number of cells for which co-expression means anything.

    Raises
    ------
    InputError
        One line naming the file, what is wrong, where and how often, and one action that resolves it.
    """
    layout = inspect(Path(path), layer=layer, gene_id_key=gene_id_key, spatial_key=spatial_key)
    where = short_path(path)
    used = range(len(layout.names)) if layout.used_genes is None else layout.used_genes.tolist()
    gene, gene_id, warnings = resolve_genes(
        [layout.names[i] for i in used],
        [layout.ids[i] for i in used],
        has_ids=gene_id_key is not None,
        other_keys=layout.id_keys,
        where=where,
    )
    if layout.n_used < min_cells:
        msg = f"{layout.n_used} cells, expected at least {min_cells} for co-expression"
        raise InputError(msg, code="E251", where=where, fix="leave this dataset out or merge it with its replicates")
    return H5adSource(layout, gene, gene_id, layout.warnings + warnings)


class ArraySource:
    """Counts in memory as a :class:`CountSource`.

    Parameters
    ----------
    counts
        Cells x genes, any real type; compressed sparse rows or dense.
    gene
        Names, shape (G,), unique.
    gene_id
        Identifiers, shape (G,); ``None``: the names.
    coords
        Shape (C, d) or ``None``.
    obs
        Columns of the table of cells, each of shape (C,), text or numbers.
    name
        Name for messages and the fingerprint.

    Raises
    ------
    InputError
        E210 for repeated names; in :meth:`blocks` for values that are not counts.
    """

    def __init__(
        self,
        counts: sp.csr_matrix | sp.csr_array | NDArray[Any],
        gene: Sequence[str] | NDArray[np.str_],
        *,
        gene_id: Sequence[str] | NDArray[np.str_] | None = None,
        coords: NDArray[np.float64] | None = None,
        obs: Mapping[str, NDArray[Any]] | None = None,  # text or numbers
        name: str = "array",
    ) -> None:
        self._counts = sp.csr_matrix(counts)
        self.n_cells, self.n_genes = map(int, self._counts.shape)
        self.n_entries = int(self._counts.nnz)
        names = [str(g) for g in gene]
        ids = names if gene_id is None else [str(g) for g in gene_id]
        if len(names) != self.n_genes or len(ids) != self.n_genes:
            msg = f"expected a name and an identifier for {self.n_genes} genes, got {len(names)}, {len(ids)}"
            raise ValueError(msg)
        if coords is not None and len(coords) != self.n_cells:
            msg = f"expected coordinates of {self.n_cells} cells, got {len(coords)}"
            raise ValueError(msg)
        self._obs = {key: _column(values) for key, values in (obs or {}).items()}
        for key, values in self._obs.items():
            if values.shape != (self.n_cells,):
                msg = f"expected the column {key!r} of {self.n_cells} cells, got shape {values.shape}"
                raise ValueError(msg)
        self.path = Path(name)
        self.gene, self.gene_id, self.warnings = resolve_genes(
            names, ids, has_ids=gene_id is not None, other_keys=(), where=name
        )
        self.coords = coords

    def n_merged(self, start: int = 0, stop: int | None = None) -> int:
        """Return 0: duplicates are not counted here."""
        del start, stop
        return 0

    def blocks(
        self, rows: int, *, start: int = 0, stop: int | None = None, validate: bool = True
    ) -> Iterator[tuple[int, sp.csr_matrix]]:
        """Read the cells [start, stop) in order; see :meth:`CountSource.blocks`."""
        start, stop = check_range(rows, start, stop, self.n_cells)
        check = CountCheck(str(self.path), self.gene, values=validate)
        yield from cut_blocks(self._parts(check, rows, start, stop), rows, start=start)
        check.finish()

    def _parts(self, check: CountCheck, rows: int, start: int, stop: int) -> Iterator[sp.csr_matrix]:
        indptr = self._counts.indptr[start : stop + 1]
        for a, b in windows(indptr, rows):
            inside = slice(indptr[a], indptr[b])
            indices, data = self._counts.indices[inside].copy(), self._counts.data[inside].copy()
            part = check.add(start + a, indptr[a : b + 1] - indptr[a], indices, data)
            if part is not None:
                yield part

    def obs(self, column: str) -> NDArray[Any]:  # text or float64
        """Return a column of the table of cells; see :meth:`CountSource.obs`."""
        if column not in self._obs:
            raise no_column(column, list(self._obs), where=str(self.path))
        return self._obs[column]

    def fingerprint(self) -> dict[str, Any]:  # JSON
        """Return name, size and SHA-256 of the arrays."""
        parts = [self._counts.indptr.astype("<i8"), self._counts.indices.astype("<i8"), self._counts.data, self.gene]
        digest = hashlib.sha256()
        for part in parts:
            digest.update(np.ascontiguousarray(part).tobytes())
        return {"name": str(self.path), "bytes": sum(p.nbytes for p in parts), "sha256": digest.hexdigest()}


def _column(values: NDArray[Any]) -> NDArray[Any]:
    values = np.asarray(values)
    return values.astype(np.float64 if values.dtype.kind in "biuf" else np.str_)
