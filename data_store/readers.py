"""Sources of raw counts: files of any format, and arrays in memory.

Legend: C cells, G genes, d spatial dimensions.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import scipy.sparse as sp

from musegnn.data_store.annotation import genes_near_peaks, read_annotation
from musegnn.data_store.blocks import check_range, cut_blocks, windows
from musegnn.data_store.count_source import MIN_CELLS, CountSource
from musegnn.data_store.description import count_layers, describe
from musegnn.data_store.formats.container import TransposedContainer
from musegnn.data_store.formats.opening import open_container
from musegnn.data_store.hdf5 import no_column
from musegnn.data_store.location import Location, fingerprint
from musegnn.data_store.names import resolve_genes, use_columns
from musegnn.data_store.validate import CountCheck, raise_malformed
from musegnn.errors import InputError
from musegnn.text import shorten

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from anndata import AnnData
    from numpy.typing import NDArray

    from musegnn.data_store.description import MatrixDescription
    from musegnn.data_store.formats.container import Access, Container, Matrix
    from musegnn.data_store.names import GeneNames

HASHED_ROWS = 16384

__all__ = ["ArraySource", "CountSource", "FileSource", "open_matrix"]


class FileSource:
    """Counts of a file or folder as a :class:`CountSource`; made by :func:`open_matrix`.

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
                if error.code != "E230":
                    raise
                same = False  # it is gone
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


class MemorySource(FileSource):
    """Counts of an AnnData object as a :class:`CountSource`; made by :func:`open_matrix`."""

    def __init__(
        self, adata: AnnData, name: str, description: MatrixDescription, names: GeneNames, **options: Any
    ) -> None:
        super().__init__(Location.of(name), description, names, **options)
        self._adata = adata

    def _open(self) -> AbstractContextManager[Container]:
        return _open_memory(self._adata, self._location.where, transpose=self._transpose)

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
def _open_memory(adata: AnnData, where: str, *, transpose: bool) -> Iterator[Container]:
    from musegnn.data_store.formats.in_memory import MemoryContainer

    container = MemoryContainer(adata, where)
    yield TransposedContainer(container) if transpose else container


def open_matrix(
    path: Path | str | AnnData,
    *,
    name: str = "AnnData",
    layer: str | None = None,
    gene_id_key: str | None = None,
    gene_name_key: str | None = None,
    spatial_key: str | None = None,
    mod: str | None = None,
    transpose: bool = False,
    by: str | None = None,
    annotation: Path | str | None = None,
    min_cells: int = MIN_CELLS,
) -> FileSource:
    """Open a file, folder, URL or AnnData object with counts and check its structure; counts are checked when read.

    Where a Visium file marks spots that are not under tissue, or a multi-modal file other features than genes, these
    are left out with a warning. ``docs/inputs.md`` lists the formats, and which of them are streamed.

    Parameters
    ----------
    path
        File, folder or URL; or an AnnData object, which is read where it is and must not be changed while it is in use,
        a backed one from its file.
    name
        Name of an AnnData object for messages.
    layer
        ``None`` for the main matrix, the name of a layer, or ``raw`` for ``raw.X``.
    gene_id_key
        Column of genes with identifiers, used where names are not unique.
    gene_name_key
        Column of genes with their names; ``None``: the index, or, where that holds Ensembl identifiers, the usual
        column of symbols if there is one.
    spatial_key
        Entry of ``obsm`` with coordinates; required for spatial data, ``None`` reads none.
    mod
        Modality, table or genome, in files of several.
    transpose
        Whether the matrix is genes x cells in a format of cells x genes.
    by
        Column of cells whose labels become datasets of their own, so that slides among them may lie over one another.
    annotation
        GTF, GFF or BED file of genes, for counts of peaks: those in a gene or the 2000 bases before it are summed.
    min_cells
        Smallest number of cells for which co-expression means anything.

    Raises
    ------
    InputError
        One line naming the file, what is wrong, where and how often, and one action that resolves it.
    """
    adata = None if isinstance(path, (Path, str)) else path
    if adata is not None and adata.isbacked:
        adata, path = (adata.to_memory(), path) if adata.is_view else (None, Path(str(adata.filename)))
    location = Location.of(name if adata is not None else cast("Path | str", path))
    where = location.where
    opened = (
        open_container(location, mod=mod, transpose=transpose)
        if adata is None
        else _open_memory(adata, where, transpose=transpose)
    )
    with opened as container:
        stamps = {file: file.stamp() for file in container.files}
        found = describe(
            container,
            where=where,
            layer=layer,
            gene_id_key=gene_id_key,
            gene_name_key=gene_name_key,
            spatial_key=spatial_key,
            by=by,
            peaks=annotation is not None,
        )
    used = np.arange(len(found.names)) if found.used_genes is None else found.used_genes
    near = None
    if annotation is None:
        names = resolve_genes(
            [found.names[i] for i in used],
            [found.ids[i] for i in used],
            has_ids=found.id_key is not None or found.name_key is not None,
            other_keys=found.id_keys,
            where=where,
            marked=found.marked[used],
        )
    else:
        near, names = _annotate([found.names[i] for i in used], Location.of(annotation), found.warnings, where)
    if found.n_used < min_cells:
        msg = f"{found.n_used} cells, expected at least {min_cells} for co-expression"
        raise InputError(msg, code="E251", where=where, fix="leave this dataset out or merge it with its replicates")
    options: dict[str, Any] = {"mod": mod, "transpose": transpose, "stamps": stamps, "near": near}
    if adata is not None:
        return MemorySource(adata, name, found, names, **options)
    return FileSource(location, found, names, **options)


def _annotate(
    peaks: list[str], annotation: Location, warnings: list[str], where: str
) -> tuple[sp.csr_matrix, GeneNames]:
    """Return which peaks are near which genes of an annotation, those near none aside, and the names of the genes."""
    genes = read_annotation(annotation)
    near = genes_near_peaks(peaks, genes, where)
    far = int((np.diff(near.indptr) == 0).sum())
    if far:
        warnings.append(f"W242: {far} of {len(peaks)} peaks are near no gene and were left out")
    kept = np.flatnonzero(near.getnnz(axis=0))
    names = resolve_genes(
        [genes.name[i] for i in kept],
        [genes.gene_id[i] for i in kept],
        has_ids=True,
        other_keys=(),
        where=annotation.where,
    )
    return near[:, kept].tocsr(), names


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
