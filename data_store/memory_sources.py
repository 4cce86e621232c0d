"""Counts in memory: AnnData objects, and arrays.

Legend: C cells, G genes, d spatial dimensions.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from musegnn.data_store.blocks import check_range, cut_blocks, windows
from musegnn.data_store.file_source import FileSource, take_genes
from musegnn.data_store.formats.container import TransposedContainer
from musegnn.data_store.hdf5 import no_column
from musegnn.data_store.location import Location
from musegnn.data_store.names import resolve_genes, use_columns
from musegnn.data_store.validate import CountCheck

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from anndata import AnnData
    from numpy.typing import NDArray

    from musegnn.data_store.description import MatrixDescription
    from musegnn.data_store.formats.container import Container
    from musegnn.data_store.names import GeneNames

HASHED_ROWS = 16384


class MemorySource(FileSource):
    """Counts of an AnnData object as a count source; made by :func:`~musegnn.data_store.readers.open_matrix`."""

    def __init__(
        self, adata: AnnData, name: str, description: MatrixDescription, names: GeneNames, **options: Any
    ) -> None:
        super().__init__(Location.of(name), description, names, **options)
        self._adata = adata

    def _open(self) -> AbstractContextManager[Container]:
        return open_memory(self._adata, self._location.where, transpose=self._transpose)

    def fingerprint(self) -> dict[str, Any]:  # JSON
        """Return size and SHA-256 of the counts, of all names and labels, and of the coordinates."""
        if self._fingerprint is None:
            digest, size = hashlib.sha256(), 0
            with self._open() as container:
                for table in (container.genes(self.description.layer), container.cells()):
                    digest.update("\0".join([*table.names(), *table.columns()]).encode())
                    for column in table.columns():
                        digest.update(np.ascontiguousarray(table.values(column)).tobytes())
                matrix = container.matrix(self.description.layer)
                for _, *parts in matrix.rows(0, matrix.shape[0], HASHED_ROWS):
                    for part, kind in zip(parts, ("<i8", "<i8", "<f8"), strict=True):
                        digest.update(part.astype(kind).tobytes())
                        size += part.nbytes
            digest.update(b"" if self.coords is None else self.coords.tobytes())
            self._fingerprint = {"name": "AnnData in memory", "bytes": size, "sha256": digest.hexdigest()}
            self._fingerprint |= self._options() | self._recognised()
        return dict(self._fingerprint)


@contextmanager
def open_memory(adata: AnnData, where: str, *, transpose: bool) -> Iterator[Container]:
    """Read an AnnData object as a container."""
    from musegnn.data_store.formats.in_memory import MemoryContainer

    container = MemoryContainer(adata, where)
    yield TransposedContainer(container) if transpose else container


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
        self.path: Path | str = Path(name)
        warnings: list[str] = []
        self._used = use_columns(names, None, name, warnings)
        used = range(len(names)) if self._used is None else self._used
        resolved = resolve_genes(
            [names[i] for i in used], [ids[i] for i in used], has_ids=gene_id is not None, other_keys=(), where=name
        )
        self.gene, self.gene_id, self.warnings = resolved.gene, resolved.gene_id, warnings + resolved.warnings
        self.mitochondrial = resolved.mitochondrial
        self._columns, self._names, self.n_genes = names, resolved, len(resolved.gene)
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
        check = CountCheck(str(self.path), self._columns, values=validate)
        yield from cut_blocks(self._parts(check, rows, start, stop), rows, start=start)
        check.finish()

    def _parts(self, check: CountCheck, rows: int, start: int, stop: int) -> Iterator[sp.csr_matrix]:
        indptr = self._counts.indptr[start : stop + 1]
        for a, b in windows(indptr, rows):
            inside = slice(indptr[a], indptr[b])
            indices, data = self._counts.indices[inside].copy(), self._counts.data[inside].copy()
            part = check.add(start + a, indptr[a : b + 1] - indptr[a], indices, data)
            if part is not None:
                yield take_genes(part, self._used, self._names)

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
