"""Gram matrix of counts under two weightings at once, accumulated block by block.

The derivation is in this folder's README.

Legend: b cells of a block, N genes, R rows and C = N - start columns of a stripe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from musegnn.kernels.validation import check_array, csr_parts, load_impl, resolve_impl

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from musegnn.kernels.validation import Floats, Ints

GramImpl = Literal["auto", "numba", "reference", "torch"]

DENSE = 0.08
PADDING = 32


def scattered_genes(detected: Ints, n_cells: int) -> int:
    """Return the number of leading genes whose pairs are cheaper one by one than in dense tiles.

    These are genes of a density below 0.08, where both ways cost the same (README, "Cost"). `detected` holds the cells
    in which each gene is detected, ascending, shape (N,).

    Examples
    --------
    >>> scattered_genes(np.array([5, 7, 10, 80]), 100)
    2
    """
    if (np.diff(detected) < 0).any():
        msg = "detected must ascend: genes are expected in ascending density"
        raise ValueError(msg)
    return int(np.searchsorted(detected, DENSE * n_cells, side="left"))


class WeightedGram:
    """Sums ``A_jkw = sum_i x_ij g_jw(s_i) x_ik g_kw(s_i)``, ``g_jw(s) = 1 / (mu_j + s slope_jw)``, for some rows j.

    Parameters
    ----------
    mu, slopes
        Means relative to depth, (N,), and slope of each gene under the two weightings, (N, 2), float64.
    rows
        First row and end of the stripe; ``None``: all rows. Columns run from the first row on.
    scattered
        Leading genes whose pairs among themselves are added one by one (:func:`scattered_genes`); it changes the
        speed only. Genes in ascending density are fastest.
    impl
        The bits of ``numba`` depend neither on how cells are cut into blocks nor on `rows` and `scattered`. ``torch``
        adds dense products on the torch device `device`.
    """

    def __init__(
        self,
        mu: Floats,
        slopes: Floats,
        *,
        rows: tuple[int, int] | None = None,
        scattered: int = 0,
        impl: GramImpl = "auto",
        device: str = "cpu",
    ) -> None:
        n_genes = len(mu)
        start, stop = rows if rows is not None else (0, n_genes)
        check_array("mu", mu, (n_genes,), np.float64)
        check_array("slopes", slopes, (n_genes, 2), np.float64)
        if not 0 <= start <= stop <= n_genes or not 0 <= scattered <= n_genes:
            msg = f"rows and scattered must lie in [0, {n_genes}], got {rows} and {scattered}"
            raise ValueError(msg)
        self.start, self.stop = start, stop
        self._mu, self._slopes, self._scattered = mu, slopes, scattered
        self._impl = resolve_impl(impl, ("numba", "reference", "torch"))
        self._width = n_genes - start
        if self._impl == "torch":
            from musegnn.kernels.gram.impl.torch import DeviceGram

            self._device = DeviceGram(mu, slopes, start, stop, device)
        else:
            self._sums = np.zeros((stop - start, self._width + PADDING, 2))

    def add(self, block: csr_matrix, depth: Floats) -> None:
        """Add a block of cells.

        Parameters
        ----------
        block
            Counts of the N genes, CSR without duplicates, indices in any order, shape (b, N), int32 data.
        depth
            Depths s of the cells, shape (b,), float64.
        """
        parts = csr_parts(block)
        check_array("depth", depth, (block.shape[0],), np.float64)
        if block.shape[1] != len(self._mu):
            msg = f"block must have {len(self._mu)} genes, got {block.shape[1]}"
            raise ValueError(msg)
        if self._impl == "torch":
            self._device.add(parts, depth)
            return
        stripe = (self.start, self.stop, self._scattered)
        load_impl("gram", self._impl).gram(parts, depth, self._mu, self._slopes, stripe, self._sums)

    def values(self) -> Floats:
        """Return the sums so far, (R, C, 2) float64; only entries of genes j <= k are meaningful."""
        if self._impl == "torch":
            return self._device.values()
        return self._sums[:, : self._width]

    @staticmethod
    def nbytes(n_genes: int, rows: tuple[int, int]) -> int:
        """Return the bytes of the sums of a stripe of these rows."""
        return 16 * (rows[1] - rows[0]) * (n_genes - rows[0] + PADDING)


def accumulate_dense_gram(rows: Floats, out: Floats) -> None:
    """Add ``rows.T @ rows`` of a dense block (b, N) to `out` (N, N) in place, both float64 in C order."""
    n_genes = out.shape[0]
    check_array("rows", rows, (len(rows), n_genes), np.float64)
    check_array("out", out, (n_genes, n_genes), np.float64)
    out += rows.T @ rows


def symmetrize(out: Floats, *, rows: int = 256) -> None:
    """Copy the entries with j < k of an (N, N, ...) array to k, j, in place, some rows at a time."""
    n_genes = len(out)
    for start in range(0, n_genes, rows):
        stop = min(start + rows, n_genes)
        out[stop:, start:stop] = np.swapaxes(out[start:stop, stop:], 0, 1)
        for j in range(start, stop):
            out[j + 1 : stop, j] = out[j, j + 1 : stop]
