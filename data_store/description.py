"""The description of a matrix from headers and names alone: which counts, genes and cells are used, and what is not.

Legend: C cells and G genes of the file, d spatial dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from musegnn.data_store.hdf5 import no_column
from musegnn.data_store.names import looks_transposed
from musegnn.data_store.spatial import read_coords, tissue_mask
from musegnn.data_store.validate import MAX_COUNT, raise_malformed
from musegnn.errors import InputError
from musegnn.text import shorten

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.data_store.formats.container import Access, Container, Matrix, Table


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
    names, ids, id_key, id_keys
        Names and identifiers of all columns; the column of identifiers, and others with unique values.
    kinds
        Number of columns of each kind by the file, empty where it tells none.
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
    kinds: dict[str, int]
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
    container: Container, *, where: str, layer: str | None, gene_id_key: str | None, spatial_key: str | None
) -> MatrixDescription:
    """Read names and structure of an open file; an error for all but counts of cells x genes."""
    layers = container.matrices()
    chosen = choose_layer(layers, layer, where)
    cells, genes = container.cells(), container.genes(chosen)
    cell_names, names = cells.names(), genes.names()
    if looks_transposed(names, cell_names):
        msg = f"{len(cell_names)} rows look like genes and {len(names)} columns like cells"
        raise InputError(msg, code="E216", where=where, fix="set `transpose: true`, or leave it out where it is set")
    matrix = container.matrix(chosen)
    id_key, ids, id_keys = _identifiers(genes, names, gene_id_key, container.id_column, where)
    if matrix.shape != (len(cell_names), len(names)):
        msg = (
            f"{chosen} has shape {matrix.shape}, but there are {len(cell_names)} cell names and {len(names)} gene names"
        )
        raise_malformed(msg, where)
    warnings = []
    if matrix.access == "columns":
        warnings.append(f"W226: {chosen} is stored by columns and has to be turned into rows, which takes longer")
    names = [name or gene_id for name, gene_id in zip(names, ids, strict=True)]
    kinds, used_genes = _used_genes(genes, names, where, warnings)
    coords = used_cells = None
    if spatial_key is not None:
        used_cells = tissue_mask(cells, len(cell_names), where, warnings)
        coords = read_coords(container, cells, spatial_key, len(cell_names), used_cells, where)
    n_entries = matrix.n_entries
    if matrix.lengths is not None and used_cells is not None:
        n_entries = int(matrix.lengths[used_cells].sum())
    return MatrixDescription(
        format=container.format, layer=chosen, layers=layers, shape=matrix.shape, storage=matrix.storage,
        access=matrix.access, n_entries=n_entries, names=names, ids=ids, id_key=id_key, id_keys=id_keys, kinds=kinds,
        used_cells=used_cells, used_genes=used_genes, coords=coords, coordinates=container.coordinates(),
        labels={column: cells.n_labels(column) for column in cells.columns()}, warnings=warnings,
    )  # fmt: skip


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
        if len(set(names)) == len(names):
            return None, names, []
        return None, names, [column for column in columns if _is_unique_text(genes, column, len(names))]
    if key not in columns:
        error = no_column(key, columns, where=where, table="var")
        raise InputError(error.message, code="E255", where=where, fix="correct `gene_id_key`")
    ids = [str(value) for value in genes.values(key).tolist()]
    if len(ids) != len(names):
        raise_malformed(f"`{key}` has {len(ids)} rows for {len(names)} genes", where)
    return key, ids, []


def _is_unique_text(genes: Table, column: str, n: int) -> bool:
    try:
        values = genes.values(column)
    except InputError:
        return False  # a column that is not names is no candidate
    return values.dtype.kind == "U" and len(np.unique(values)) == n


def _used_genes(
    genes: Table, names: list[str], where: str, warnings: list[str]
) -> tuple[dict[str, int], NDArray[np.int64] | None]:
    """Leave out columns without a name and, in a multi-modal matrix, columns that are not genes."""
    used = np.array([bool(name) for name in names], dtype=bool)
    counted: dict[str, int] = {}
    if not used.all():
        first = int(np.flatnonzero(~used)[0])
        warnings.append(f"W241: {(~used).sum()} columns without a gene name were left out (first: column {first})")
    if "feature_types" in genes.columns():
        kinds = genes.values("feature_types")
        if len(kinds) != len(names):
            raise_malformed(f"`feature_types` has {len(kinds)} rows for {len(names)} genes", where)
        found, numbers = np.unique(kinds, return_counts=True)
        counted = dict(zip(found.tolist(), numbers.tolist(), strict=True))
        is_gene = kinds == "Gene Expression"
        if is_gene.any() and not is_gene.all():
            dropped = ", ".join(sorted({shorten(str(kind), 24) for kind in kinds[~is_gene]}))
            warnings.append(f"W218: {(~is_gene).sum()} columns that are not genes were left out ({dropped})")
            used &= is_gene
    return counted, None if used.all() else np.flatnonzero(used).astype(np.int64)


def count_layers(container: Container, *, besides: str) -> list[str]:
    """Name the matrices that look like raw counts, in the words of the setting `layer`.

    A sample of stored values has to be whole, not negative and not all ones.
    """
    return [name for name in container.matrices() if name != besides and _looks_like_counts(container, name)]


def _looks_like_counts(container: Container, layer: str) -> bool:
    try:
        matrix: Matrix = container.matrix(layer)
        sample: NDArray[Any] = matrix.sample()
    except InputError:
        return False
    if len(sample) == 0 or sample.dtype.kind not in "iuf" or not np.isfinite(sample).all():
        return False
    return bool((sample == np.floor(sample)).all() and sample.min() >= 0 and 1 < sample.max() <= MAX_COUNT)
