"""Sources of raw counts: what the graph builder reads, block by block.

Legend: b cells of a block, C cells, G genes, d spatial dimensions.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import scipy.sparse as sp

from musegnn.data_store.h5ad import H5adLayout, count_matrices, inspect, open_file, read_rows
from musegnn.data_store.names import resolve_genes
from musegnn.data_store.validate import CountCheck, CountSummary, short_path, validate_counts
from musegnn.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["ArraySource", "CountSource", "CountSummary", "H5adSource", "open_h5ad", "validate_counts"]

MIN_CELLS = 50


class CountSource(Protocol):
    """A matrix of raw counts, cells x genes, that is read in blocks of cells."""

    @property
    def path(self) -> Path:
        """Where the counts come from, for messages."""

    @property
    def n_cells(self) -> int:
        """Number of cells."""

    @property
    def n_genes(self) -> int:
        """Number of genes."""

    @property
    def gene(self) -> NDArray[np.str_]:
        """Names by which genes are matched, unique, shape (G,)."""

    @property
    def gene_id(self) -> NDArray[np.str_]:
        """Identifiers, equal to `gene` where the input has none, shape (G,)."""

    @property
    def coords(self) -> NDArray[np.float64] | None:
        """Coordinates of cells, shape (C, d) with d 2 or 3; ``None`` for data without space."""

    @property
    def warnings(self) -> list[str]:
        """Lines ``W###: ...``; complete after one pass."""

    def blocks(self, rows: int) -> Iterator[tuple[int, sp.csr_matrix]]:
        """Read all cells in order.

        Parameters
        ----------
        rows
            Cells per block; the last block may be smaller.

        Yields
        ------
        tuple of int and scipy.sparse.csr_matrix
            Number of the block's first cell, and its counts of shape (b, G): data int32 in [1, 2^24], indices int32
            ascending within a row, no duplicates, no stored zeros.

        Raises
        ------
        InputError
            At the end of the pass when any value is not a count; at once when the structure is malformed.
        """
        ...

    def fingerprint(self) -> dict[str, Any]:  # JSON
        """Give ``{"name": ..., "bytes": ..., "sha256": ...}`` of the input."""
        ...


class H5adSource:
    """Counts of an ``.h5ad`` file; made by :func:`open_h5ad`.

    The object holds names, row pointers and coordinates only and can be pickled; every pass opens the file anew.
    """

    def __init__(
        self, layout: H5adLayout, gene: NDArray[np.str_], gene_id: NDArray[np.str_], warnings: list[str]
    ) -> None:
        self._layout = layout
        self.gene = gene
        self.gene_id = gene_id
        self.coords = layout.coords
        self._warnings = warnings
        self._merged = 0
        self._sha256: str | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return self._layout.path

    @property
    def n_cells(self) -> int:
        """Number of cells that are read."""
        return self._layout.n_used

    @property
    def n_genes(self) -> int:
        """Number of genes that are read."""
        return len(self.gene)

    @property
    def warnings(self) -> list[str]:
        """Lines ``W###: ...``, with duplicates counted once a pass has ended."""
        merged = [f"W236: {self._merged} duplicate entries of the sparse matrix were summed"] if self._merged else []
        return self._warnings + merged

    def blocks(self, rows: int) -> Iterator[tuple[int, sp.csr_matrix]]:
        """Read all cells in order; see :meth:`CountSource.blocks`."""
        if rows < 1:
            msg = f"rows must be at least 1, got {rows}"
            raise ValueError(msg)
        layout = self._layout
        self._check_unchanged()
        check = CountCheck(short_path(self.path), layout.columns)
        position = 0
        for start, indptr, indices, data in read_rows(layout, rows):
            block = check.add(start, indptr, indices, data)
            if block is None:
                continue
            if layout.used_cells is not None:
                block = block[layout.used_cells[start : start + block.shape[0]]]
            if layout.used_genes is not None:
                block = block[:, layout.used_genes]
            if block.shape[0]:
                yield position, block
            position += block.shape[0]
        if check.failed:
            check.finish(elsewhere=self._counts_elsewhere())
        self._check_unchanged()
        self._merged = check.n_merged

    def fingerprint(self) -> dict[str, Any]:  # JSON
        """Give name, size and SHA-256 of the file."""
        if self._sha256 is None:
            with self.path.open("rb") as file:
                self._sha256 = hashlib.file_digest(file, "sha256").hexdigest()
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
        with open_file(self.path) as file:
            found = count_matrices(file, besides=self._layout.key)
        if not found:
            return ""
        return (
            f"set `layer: {found[0]}`, which holds raw counts"
            if found[0] != "X"
            else "leave `layer` out: X holds counts"
        )


def open_h5ad(
    path: Path | str,
    *,
    layer: str | None = None,
    gene_id_key: str | None = None,
    spatial_key: str | None = None,
    min_cells: int = MIN_CELLS,
) -> H5adSource:
    """Open an AnnData file and check its structure; counts are checked when they are read.

    Compressed sparse rows and dense matrices are streamed; compressed sparse columns are turned into rows in memory
    once per pass, with a warning. Where a Visium file marks spots that are not under tissue, or a multi-modal file
    other features than genes, these are left out with a warning.

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

    Returns
    -------
    H5adSource
        A :class:`CountSource`.

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
    """Counts that are in memory already.

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
    name
        For messages and the fingerprint.

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
        name: str = "array",
    ) -> None:
        self._counts = sp.csr_matrix(counts)
        names = [str(g) for g in gene]
        ids = names if gene_id is None else [str(g) for g in gene_id]
        if self._counts.shape[1] != len(names) or len(ids) != len(names):
            msg = f"expected a name and an identifier for {self._counts.shape[1]} genes, got {len(names)}, {len(ids)}"
            raise ValueError(msg)
        if coords is not None and len(coords) != self._counts.shape[0]:
            msg = f"expected coordinates of {self._counts.shape[0]} cells, got {len(coords)}"
            raise ValueError(msg)
        self.path = Path(name)
        self.gene, self.gene_id, self.warnings = resolve_genes(
            names, ids, has_ids=gene_id is not None, other_keys=(), where=name
        )
        self.coords = coords

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return int(self._counts.shape[0])

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return int(self._counts.shape[1])

    def blocks(self, rows: int) -> Iterator[tuple[int, sp.csr_matrix]]:
        """Read all cells in order; see :meth:`CountSource.blocks`."""
        check = CountCheck(str(self.path), self.gene)
        for start in range(0, self.n_cells, rows):
            part = self._counts[start : start + rows]
            block = check.add(start, part.indptr, part.indices, part.data)
            if block is not None:
                yield start, block
        check.finish()

    def fingerprint(self) -> dict[str, Any]:  # JSON
        """Give name, size and SHA-256 of the arrays."""
        parts = [self._counts.indptr.astype("<i8"), self._counts.indices.astype("<i8"), self._counts.data, self.gene]
        digest = hashlib.sha256()
        for part in parts:
            digest.update(np.ascontiguousarray(part).tobytes())
        return {"name": str(self.path), "bytes": sum(p.nbytes for p in parts), "sha256": digest.hexdigest()}
