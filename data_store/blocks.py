"""How consecutive cells are cut: into windows that are read at a time, and into the blocks that a reader gets.

Legend: b cells of a block, G genes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

MAX_ENTRIES = 2**22
"""Stored entries of a window or block, unless one cell alone has more."""


def cut_blocks(parts: Iterable[sp.csr_matrix], rows: int, *, start: int = 0) -> Iterator[tuple[int, sp.csr_matrix]]:
    """Join and cut the counts of consecutive cells, from number `start` on, into the blocks of a count source.

    `parts` are in the canonical form of :meth:`CountSource.blocks` and cut anywhere; one that is a block by itself is
    passed on as it is.
    """
    held: list[sp.csr_matrix] = []
    n_cells = n_entries = 0
    for part in parts:
        indptr = part.indptr
        first, n = 0, part.shape[0]
        while first < n:
            room = int(indptr[first]) + MAX_ENTRIES - n_entries
            last = min(int(np.searchsorted(indptr, room, side="right")) - 1, first + rows - n_cells)
            last = max(last, first + 1 if n_cells == 0 else first)
            if last > first:
                held.append(part if last - first == n else part[first:last])
                n_cells += last - first
                n_entries += int(indptr[last] - indptr[first])
            if n_cells == rows or last < n:
                yield start, _join(held)
                start += n_cells
                held, n_cells, n_entries = [], 0, 0
            first = last
    if held:
        yield start, _join(held)


def _join(parts: list[sp.csr_matrix]) -> sp.csr_matrix:
    return parts[0] if len(parts) == 1 else sp.vstack(parts, format="csr")


def check_range(rows: int, start: int, stop: int | None, n_cells: int) -> tuple[int, int]:
    """Return the range of cells that a call of :meth:`CountSource.blocks` asks for, or raise ``ValueError``."""
    stop = n_cells if stop is None else stop
    if rows < 1:
        msg = f"rows must be at least 1, got {rows}"
        raise ValueError(msg)
    if not 0 <= start <= stop <= n_cells:
        msg = f"expected a range within 0 and {n_cells} cells, got {start} to {stop}"
        raise ValueError(msg)
    return start, stop


def windows(indptr: NDArray[Any], rows: int) -> Iterator[tuple[int, int]]:
    """Cut compressed rows into consecutive windows ``[a, b)`` of at most `rows` rows and 2^22 entries.

    A row with more entries is a window of its own.
    """
    a, n = 0, len(indptr) - 1
    while a < n:
        fits = int(np.searchsorted(indptr, int(indptr[a]) + MAX_ENTRIES, side="right")) - 1
        b = min(max(fits, a + 1), a + rows, n)
        yield a, b
        a = b
