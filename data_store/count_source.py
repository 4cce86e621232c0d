"""What the graph builder reads: a matrix of raw counts, cells x genes, in blocks of cells.

Legend: b cells of a block, C cells, G genes, d spatial dimensions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    import scipy.sparse as sp
    from numpy.typing import NDArray

MIN_CELLS = 50
"""Fewest cells of a graph: in a file, under a label, and after quality control."""


class CountSource(Protocol):
    """A matrix of raw counts, cells x genes, that is read in blocks of cells."""

    @property
    def path(self) -> Path | str:
        """Where the counts come from, for messages: a path, or a URL as text."""

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
    def mitochondrial(self) -> NDArray[np.bool_]:
        """Genes of mitochondria, shape (G,)."""

    @property
    def coords(self) -> NDArray[np.float64] | None:
        """Coordinates of cells, shape (C, d) with d 2 or 3; ``None`` for data without space."""

    @property
    def warnings(self) -> list[str]:
        """Lines ``W###: ...``; complete after all cells were read once with `validate`."""

    @property
    def n_entries(self) -> int | None:
        """Stored entries, where they are known without reading counts; else ``None``.

        Entries of genes that are left out, zeros and duplicates count, so that blocks hold at most as many.
        """

    def blocks(
        self, rows: int, *, start: int = 0, stop: int | None = None, validate: bool = True
    ) -> Iterator[tuple[int, sp.csr_matrix]]:
        """Read the cells [start, stop) in order.

        Where one block ends and the next begins depends on the counts, `rows`, `start` and `stop` alone, not on how
        they are stored.

        Parameters
        ----------
        rows
            Most cells per block. A block ends earlier where it would hold more than 2^22 counts; a single cell with
            more is a block.
        start, stop
            First cell, and the one after the last (``None``: to the end), in [0, `n_cells`].
        validate
            ``False`` skips the checks of values, for cells that were read with them before.

        Yields
        ------
        tuple of int and scipy.sparse.csr_matrix
            Number of the block's first cell, and its counts of shape (b, G): data int32 in [1, 2^24], indices int32
            ascending within a row, no duplicates, no stored zeros.

        Raises
        ------
        InputError
            At the end of the range when any of its values is not a count; at once when the structure is malformed.
        ValueError
            For `rows` below 1 or a range outside the cells.
        """
        ...

    def n_merged(self, start: int = 0, stop: int | None = None) -> int:
        """Return the number of duplicate entries that were summed when this object last read exactly this range.

        Zero for sources that hold canonical counts.
        """
        ...

    def obs(self, column: str) -> NDArray[Any]:  # text or float64
        """Return a column of the table of cells, shape (C,).

        It is text for columns of text and categories, empty where missing, and float64 for columns of numbers and truth
        values, NaN where missing.

        Raises
        ------
        InputError
            E255 when there is no such column.
        """
        ...

    def fingerprint(self) -> dict[str, Any]:  # JSON
        """Return ``{"name": ..., "bytes": ..., "sha256": ...}`` of the input."""
        ...
