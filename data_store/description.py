"""The description of a matrix from headers and names alone: which counts, genes and cells are used, and what is not.

Legend: C cells and G genes of the file, d spatial dimensions.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np

from musegnn.data_store.genes import (
    CHROMOSOME_COLUMNS,
    GENOME_PREFIX,
    KIND_COLUMNS,
    MARK_COLUMNS,
    SYMBOL_COLUMNS,
    is_row_numbers,
    mark_genes,
    mark_mitochondrial,
    mark_peaks,
    on_mitochondrial_chromosome,
    plain,
    truth,
)
from musegnn.data_store.hdf5 import no_column
from musegnn.data_store.names import ENSEMBL_GENE, looks_transposed, use_columns
from musegnn.data_store.spatial import check_slides, read_coords, tissue_mask
from musegnn.data_store.stripped_names import find_stripped
from musegnn.data_store.validate import MAX_COUNT, raise_malformed
from musegnn.errors import InputError
from musegnn.text import shorten, some_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from musegnn.data_store.formats.container import Access, Container, Matrix, Table

MOST_NAMES = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixDescription:
    """What a file holds and what of it is used, known before counts are read.

    Attributes
    ----------
    format
        Name of the format.
    layer, layers
        Matrix that is used, and the shapes of all by the value of the setting `layer`.
    shape, storage, access
        Cells and genes of the file; kind, type and chunks in words; what reading a range costs.
    n_entries
        Stored entries of the cells used, in all columns; ``None`` where they are not known.
    names, ids, id_key, id_keys, name_key
        Names and identifiers of all columns; the column of identifiers, and others with unique values; the column of
        names, ``None`` for the index.
    kinds
        Number of columns of each kind by the file, empty where it tells none.
    marked
        Columns that the table of genes says to be mitochondrial, as a mask.
    used_cells, used_genes
        Cells to read as a mask, and columns to read as indices; ``None``: all.
    coords, coordinates
        Coordinates of the cells used, shape (n_used, d), or ``None``; shapes of all that may be coordinates.
    labels
        Columns of the table of cells; number of labels where known.
    warnings
        Lines ``W###: ...``, such as what is left out.
    """

    format: str
    layer: str
    layers: dict[str, tuple[int, int]]
    shape: tuple[int, int]
    storage: str
    access: Access
    n_entries: int | None
    names: list[str]
    ids: list[str]
    id_key: str | None
    id_keys: list[str]
    name_key: str | None
    kinds: dict[str, int]
    marked: NDArray[np.bool_]
    used_cells: NDArray[np.bool_] | None
    used_genes: NDArray[np.int64] | None
    coords: NDArray[np.float64] | None
    coordinates: dict[str, tuple[int, ...]]
    labels: dict[str, int | None]
    warnings: list[str]

    @property
    def n_used(self) -> int:
        """Number of cells that are read."""
        return self.shape[0] if self.used_cells is None else int(self.used_cells.sum())


def describe(
    container: Container,
    *,
    where: str,
    layer: str | None,
    gene_id_key: str | None,
    gene_name_key: str | None,
    spatial_key: str | None,
    by: str | None = None,
    peaks: bool = False,
) -> MatrixDescription:
    """Read names and structure of an open file; an error for all but counts of cells x genes, or x `peaks`.

    Parameters are those of :func:`~musegnn.data_store.readers.open_matrix`.
    """
    layers = container.matrices()
    chosen = choose_layer(layers, layer, where)
    cells, genes = container.cells(), container.genes(chosen)
    cell_names, names = cells.names(), genes.names()
    if looks_transposed(names, cell_names):
        msg = f"{len(cell_names)} rows look like genes and {len(names)} columns like cells"
        raise InputError(msg, code="E216", where=where, fix="set `transpose: true`, or leave it out where it is set")
    matrix = container.matrix(chosen)
    id_key, ids, id_keys = _identifiers(genes, names, gene_id_key, container.id_column, where)
    warnings = []
    name_key = gene_name_key or _symbol_column(genes, names)
    if name_key is not None:
        index, names = names, _column(genes, name_key, "gene_name_key", len(names), where)
        ids, id_keys = (index if id_key is None else ids), []
        if gene_name_key is None:
            warnings.append(f"W219: the index holds Ensembl identifiers; genes are named by the column `{name_key}`")
    if matrix.shape != (len(cell_names), len(names)):
        msg = (
            f"{chosen} has shape {matrix.shape}, but there are {len(cell_names)} cell names and {len(names)} gene names"
        )
        raise_malformed(msg, where)
    if matrix.access == "columns":
        warnings.append(f"W226: {chosen} is stored by columns and has to be turned into rows, which takes longer")
    names = [name or gene_id for name, gene_id in zip(names, ids, strict=True)]
    kinds = _kinds(genes, len(names), where)
    used_genes = _use_peaks(names, where) if peaks else use_columns(names, kinds, where, warnings)
    warnings += _warn_of_stripped(names, genes)
    warnings += _warn_of_larger_raw(container, chosen)
    coords = used_cells = None
    if spatial_key is not None:
        used_cells = tissue_mask(cells, len(cell_names), where, warnings)
        coords = read_coords(container, spatial_key, len(cell_names), used_cells, where)
        warnings += check_slides(cells, coords, used_cells, by, where)
    n_entries = matrix.n_entries
    if matrix.lengths is not None and used_cells is not None:
        n_entries = int(matrix.lengths[used_cells].sum())
    return MatrixDescription(
        format=container.format, layer=chosen, layers=layers, shape=matrix.shape, storage=matrix.storage,
        access=matrix.access, n_entries=n_entries, names=names, ids=ids, id_key=id_key, id_keys=id_keys,
        name_key=name_key, kinds=dict(Counter(kinds or [])), marked=_marked(genes, len(names)),
        used_cells=used_cells, used_genes=used_genes, coords=coords, coordinates=container.coordinates(),
        labels={column: cells.n_labels(column) for column in cells.columns()}, warnings=warnings,
    )  # fmt: skip


def _use_peaks(names: list[str], where: str) -> NDArray[np.intp]:
    """Return the columns that are peaks; E236 where none is."""
    used = np.flatnonzero(mark_peaks(names))
    if len(used) == 0:
        msg = f"`annotation` is set, but no column is a peak (first: {some_of([shorten(name, 24) for name in names])})"
        raise InputError(msg, code="E236", where=where, fix="leave `annotation` out")
    return used


def choose_layer(layers: dict[str, tuple[int, int]], layer: str | None, where: str) -> str:
    """Return the matrix that a setting `layer` means; E220 or E221 where there is none."""
    wanted = "X" if layer is None else layer
    if wanted in layers:
        return wanted
    listed = ", ".join(f"{shorten(name, 30)} {shape}" for name, shape in list(layers.items())[:4]) or "none"
    others = list(layers)
    code = "E221" if layer is None and len(others) > 1 else "E220"
    fix = f"set `layer: {others[0]}`" if others and others[0] != "X" else "leave `layer` out" if others else ""
    msg = f"there is no matrix `{shorten(wanted, 30)}` (matrices: {listed})"
    raise InputError(msg, code=code, where=where, fix=fix or "give a file with raw counts")


def _identifiers(
    genes: Table, names: list[str], key: str | None, usual: str | None, where: str
) -> tuple[str | None, list[str], list[str]]:
    """Return the column of identifiers, the identifiers, and columns that could be identifiers where none is."""
    columns = genes.columns()
    if key is None and usual in columns:
        key = usual
    if key is None:
        if len(set(names)) == len(names) and not is_row_numbers(names):
            return None, names, []
        return None, names, [column for column in columns if _is_unique_text(genes, column, len(names))]
    return key, _column(genes, key, "gene_id_key", len(names), where), []


def _column(genes: Table, key: str, setting: str, n_genes: int, where: str) -> list[str]:
    """Return the texts of a column of genes; E255 with the column that was meant where there is none."""
    columns = genes.columns()
    if key not in columns:
        error = no_column(key, columns, where=where, table="var")
        near = get_close_matches(key.casefold(), [name.casefold() for name in columns], n=1)
        meant = next((name for name in columns if near and name.casefold() == near[0]), "")
        fix = f"write `{setting}: {shorten(meant, 30)}`" if meant else f"correct `{setting}`"
        raise InputError(error.message, code="E255", where=where, fix=fix)
    values = [str(value) for value in genes.values(key).tolist()]
    if len(values) != n_genes:
        raise_malformed(f"`{key}` has {len(values)} rows for {n_genes} genes", where)
    return values


def _symbol_column(genes: Table, names: list[str]) -> str | None:
    """Return the column of gene symbols where the genes are Ensembl identifiers; ``None`` without one."""
    if not names or sum(ENSEMBL_GENE.match(name) is not None for name in names) < MOST_NAMES * len(names):
        return None
    for column in genes.columns():
        if plain(column) not in SYMBOL_COLUMNS:
            continue
        try:
            values = genes.values(column)
        except InputError:
            continue  # a column that is not text
        named = {value for value in values.tolist() if value and not ENSEMBL_GENE.match(str(value))}
        if values.dtype.kind == "U" and len(values) == len(names) and len(named) > len(names) / 2:
            return column
    return None


def _is_unique_text(genes: Table, column: str, n: int) -> bool:
    try:
        values = genes.values(column)
    except InputError:
        return False  # a column that is not names is no candidate
    return values.dtype.kind == "U" and len(np.unique(values)) == n


def _kinds(genes: Table, n: int, where: str) -> list[str] | None:
    """Return the kinds of the columns, shape (n,), where the table of genes tells genes from other features."""
    columns = [values.tolist() for values in _columns(genes, KIND_COLUMNS, n) if values.dtype.kind == "U"]
    kinds = next((values for values in columns if mark_genes(values) is not None), None)
    is_gene = None if kinds is None else mark_genes(kinds)
    for values in _columns(genes, frozenset(["genome"]), n):
        named = {str(value) for value in (values if is_gene is None else values[is_gene])}
        genomes = sorted(name for name in named if GENOME_PREFIX.match(f"{name}_x"))  # others are genomes of viruses
        if len(genomes) > 1 and values.dtype.kind == "U":
            msg = f"genes of {len(genomes)} genomes in one matrix ({some_of([shorten(g, 20) for g in genomes])})"
            raise InputError(msg, code="E213", where=where, fix="split the file by genome")
    return kinds


def _marked(genes: Table, n: int) -> NDArray[np.bool_]:
    """Mark the columns that the table of genes says to be mitochondrial, shape (n,)."""
    marked = np.zeros(n, dtype=np.bool_)
    for values in _columns(genes, SYMBOL_COLUMNS, n):
        marked |= mark_mitochondrial(values.astype(np.str_).tolist())
    for values in _columns(genes, CHROMOSOME_COLUMNS, n):
        marked |= on_mitochondrial_chromosome(values.astype(np.str_).tolist())
    for values in _columns(genes, MARK_COLUMNS, n):
        marked |= truth(values) == 1.0
    return marked


def _columns(table: Table, wanted: frozenset[str], n: int) -> Iterator[NDArray[Any]]:
    """Read the columns of a table with one of these names, in any spelling, that hold a value per row."""
    for column in table.columns():
        if plain(column) in wanted:
            try:
                values = table.values(column)
            except InputError:
                continue  # what is no column of this file is no help
            if values.shape == (n,):
                yield values


def _warn_of_stripped(names: list[str], genes: Table) -> list[str]:
    """Warn of names without their first letters, with a column of whole names or identifiers if there is one."""
    found = find_stripped(names)
    if found is None:
        return []
    whole = (column for column in genes.columns() if _is_whole(genes, column, len(names)))
    column = next(whole, None)
    advice = f"set `gene_name_key: {shorten(column, 30)}`" if column else "restore the names where they were stripped"
    return [f"W222: {found.describe()}; they match no gene of other datasets: {advice}"]


def _is_whole(genes: Table, column: str, n: int) -> bool:
    """Return whether a column holds symbols that are whole, or Ensembl identifiers."""
    try:
        values = genes.values(column)
    except InputError:
        return False  # a column that is no text names nothing
    if values.dtype.kind != "U" or len(values) != n:
        return False
    texts = values.tolist()
    if sum(ENSEMBL_GENE.match(text) is not None for text in texts) >= MOST_NAMES * n:
        return True
    return plain(column) in SYMBOL_COLUMNS and len(set(texts)) > n / 2 and find_stripped(texts) is None


def _warn_of_larger_raw(container: Container, layer: str) -> list[str]:
    """Warn where the matrix that is used holds a part of the genes of ``raw``, so that depths miss the others."""
    layers = container.matrices()
    n_genes, whole = layers[layer][1], layers.get("raw", (0, 0))[1]
    if layer == "raw" or whole <= n_genes:
        return []
    advice = ", which looks like counts: set `layer: raw`" if "raw" in count_layers(container, besides=layer) else ""
    return [f"W217: {layer} holds {n_genes} of the {whole} genes of raw{advice}; depths are sums over {n_genes} genes"]


def count_layers(container: Container, *, besides: str) -> list[str]:
    """Name the matrices that look like raw counts, in the words of the setting `layer`; not those of ones alone."""
    others = [name for name in container.matrices() if name != besides]
    return [name for name in others if looks_like_counts(container, name) and _sample(container, name).max() > 1]


def looks_like_counts(container: Container, layer: str) -> bool | None:
    """Return whether a sample of stored values is whole, not negative and not too large; ``None`` without a sample."""
    sample = _sample(container, layer)
    if len(sample) == 0:
        return None
    if sample.dtype.kind not in "biuf" or not np.isfinite(sample).all():
        return False
    return bool((sample == np.floor(sample)).all() and sample.min() >= 0 and sample.max() <= MAX_COUNT)


def _sample(container: Container, layer: str) -> NDArray[Any]:
    try:
        matrix: Matrix = container.matrix(layer)
        return matrix.sample()
    except InputError:
        return np.array([np.nan])  # what cannot be read holds no counts
