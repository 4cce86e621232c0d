"""Opening sources of raw counts: files of any format, and AnnData objects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from musegnn.data_store.annotation import genes_near_peaks, read_annotation
from musegnn.data_store.count_source import MIN_CELLS, CountSource
from musegnn.data_store.description import describe
from musegnn.data_store.file_source import FileSource
from musegnn.data_store.formats.opening import open_container
from musegnn.data_store.location import Location
from musegnn.data_store.memory_sources import ArraySource, MemorySource, open_memory
from musegnn.data_store.names import resolve_genes
from musegnn.errors import InputError

if TYPE_CHECKING:
    import scipy.sparse as sp
    from anndata import AnnData

    from musegnn.data_store.names import GeneNames

__all__ = ["ArraySource", "CountSource", "FileSource", "open_matrix"]


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
        else open_memory(adata, where, transpose=transpose)
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
