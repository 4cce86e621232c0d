"""SPARK-X: genes whose expression depends on place, by covariance tests with eleven kernels.

Legend: B cells of a block, C cells, D axes, G genes, K kernels.

A kernel is a transform of the centred coordinates, with columns Z, centred. With ``P`` the projection on Z, the
statistic of gene y is ``C y'Py / y'y``. Under independence it is distributed as ``lambda chi2_D`` with
``lambda = 1 - C mean(y)^2 / y'y``, since all eigenvalues of ``Z'Z (Z'Z)^-1`` are one; the p-value is therefore exact.

References
----------
Zhu, J., Sun, S. and Zhou, X. (2021), Genome Biol. 22, 184 (SPARK-X). Liu, Y. and Xie, J. (2020), J. Am. Stat. Assoc.
115, 393-402 (Cauchy combination). Benjamini, Y. and Yekutieli, D. (2001), Ann. Stat. 29, 1165-1188, theorem 1.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix
from scipy.special import chdtrc

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCALES = (0.2, 0.4, 0.6, 0.8, 1.0)
KERNELS = (
    "projection",
    *(f"gaussian{i}" for i in range(1, len(SCALES) + 1)),
    *(f"cosine{i}" for i in range(1, len(SCALES) + 1)),
)
CONSTANT = 1e-10
SINGULAR = 1e-7


@dataclass(frozen=True, slots=True, kw_only=True)
class SparkXResult:
    """Tests of G genes with K = 11 kernels.

    Attributes
    ----------
    statistic
        NaN for genes without counts and for skipped kernels, shape (G, K), float64.
    p_kernel
        p-value of each kernel, NaN as above, shape (G, K), float64.
    p
        Cauchy combination over the kernels, NaN for genes without counts, shape (G,), float64.
    p_adjusted
        Benjamini-Yekutieli adjustment over the genes with counts, shape (G,), float64.
    kernels
        Names of the kernels, in column order.
    skipped
        Names of the kernels left out because their transform is degenerate for these coordinates.
    """

    statistic: NDArray[np.float64]
    p_kernel: NDArray[np.float64]
    p: NDArray[np.float64]
    p_adjusted: NDArray[np.float64]
    kernels: tuple[str, ...]
    skipped: tuple[str, ...]

    def ranking(self) -> NDArray[np.int64]:
        """Order the genes with counts by rising adjusted p-value, ties in input order; int64."""
        order = np.argsort(self.p_adjusted, kind="stable")
        return order[: int(np.sum(~np.isnan(self.p_adjusted)))]


class SparkXScan:
    """The tests as one pass over blocks of cells.

    Parameters
    ----------
    coords
        Coordinates of all cells used, in the order of the blocks, shape (C, D). Cells without counts carry no
        information and are to be left out, as :func:`sparkx` does.
    n_genes
        Number of genes G.

    Raises
    ------
    ValueError
        When coordinates are not finite, or every kernel is degenerate: cells on a line or in one place.
    """

    def __init__(self, coords: NDArray[np.float64], n_genes: int) -> None:
        self._bases, self.skipped = _kernel_bases(_check_coords(coords))
        self._n_axes = coords.shape[1]
        self._seen = np.zeros(len(coords), np.bool_)
        self._cross = np.zeros((n_genes, self._bases.shape[1]))
        self._total = np.zeros(n_genes)
        self._squares = np.zeros(n_genes)

    def update(self, start: int, block: csr_matrix) -> None:
        """Take in the counts of consecutive cells.

        Parameters
        ----------
        start
            Position of the first cell of the block among the coordinates.
        block
            Counts, shape (B, G).

        Raises
        ------
        ValueError
            When the block does not fit or a cell comes twice.
        """
        rows = slice(start, start + block.shape[0])
        fits = start >= 0 and rows.stop <= len(self._seen) and block.shape[1] == len(self._total)
        if not fits or self._seen[rows].any():
            msg = (
                f"expected unseen cells of {len(self._seen)} with {len(self._total)} genes, "
                f"got cells {start} to {rows.stop} with {block.shape[1]} genes"
            )
            raise ValueError(msg)
        self._seen[rows] = True
        values = csr_matrix((block.data.astype(np.float64), block.indices, block.indptr), shape=block.shape)
        self._cross += np.asarray(values.T @ self._bases[rows])
        self._total += np.bincount(values.indices, values.data, minlength=len(self._total))
        self._squares += np.bincount(values.indices, values.data * values.data, minlength=len(self._total))

    def result(self) -> SparkXResult:
        """Compute the tests.

        Returns
        -------
        SparkXResult
            Of the G genes.

        Raises
        ------
        ValueError
            When not every cell was taken in.
        """
        if not self._seen.all():
            msg = f"expected the counts of {len(self._seen)} cells, got {int(self._seen.sum())}"
            raise ValueError(msg)
        n_cells = len(self._seen)
        used = np.array([name not in self.skipped for name in KERNELS])
        expressed = self._squares > 0.0
        squares = self._squares[expressed, None]
        quadratic = (self._cross[expressed] ** 2).reshape(len(squares), -1, self._n_axes).sum(axis=2)
        scale = (n_cells * squares - self._total[expressed, None] ** 2) / (n_cells * squares)
        statistic = np.full((len(self._total), len(KERNELS)), np.nan)
        p_kernel = np.full_like(statistic, np.nan)
        p = np.full(len(self._total), np.nan)
        adjusted = np.full(len(self._total), np.nan)
        statistic[np.ix_(expressed, used)] = n_cells * quadratic / squares
        p_kernel[np.ix_(expressed, used)] = exact_p_values(n_cells * quadratic / squares, scale, self._n_axes)
        p[expressed] = combine_cauchy(p_kernel[np.ix_(expressed, used)])
        adjusted[expressed] = adjust_by(p[expressed])
        return SparkXResult(
            statistic=statistic,
            p_kernel=p_kernel,
            p=p,
            p_adjusted=adjusted,
            kernels=KERNELS,
            skipped=self.skipped,
        )


def sparkx(counts: csr_matrix, coords: NDArray[np.float64]) -> SparkXResult:
    """Test all genes of a matrix in memory.

    Parameters
    ----------
    counts
        Counts, cells x genes, shape (C, G). Cells without counts are left out.
    coords
        Coordinates, shape (C, D).

    Returns
    -------
    SparkXResult
        Of the G genes.

    Raises
    ------
    ValueError
        When shapes disagree or the coordinates do not serve, see :class:`SparkXScan`.
    """
    counts = csr_matrix(counts)
    if len(coords) != counts.shape[0]:
        msg = f"expected coordinates of {counts.shape[0]} cells, got {len(coords)}"
        raise ValueError(msg)
    filled = np.flatnonzero(np.asarray(counts.sum(axis=1)).ravel() > 0)
    scan = SparkXScan(coords[filled], counts.shape[1])
    scan.update(0, counts[filled])
    return scan.result()


def exact_p_values(statistic: NDArray[np.float64], scale: NDArray[np.float64], degrees: int) -> NDArray[np.float64]:
    """Give the upper tail of ``scale chi2_degrees``.

    Parameters
    ----------
    statistic
        Not negative, any shape.
    scale
        Not negative, broadcastable; where it is 0 (a constant gene) the p-value is 1.
    degrees
        Degrees of freedom; 2 gives ``exp(-statistic / (2 scale))``.

    Returns
    -------
    numpy.ndarray
        p-values, float64.
    """
    scale = np.broadcast_to(scale, statistic.shape)
    ratio = np.divide(statistic, scale, out=np.zeros_like(statistic), where=scale > 0.0)
    p: NDArray[np.float64] = np.asarray(np.exp(-ratio / 2.0) if degrees == 2 else chdtrc(float(degrees), ratio))
    return p


def combine_cauchy(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Combine p-values of one gene by the mean of their Cauchy quantiles (ACAT, equal weights).

    Any 0 gives 0, and otherwise any 1 gives 1. Quantiles are computed as cotangents, which keep full precision at
    both ends.

    Parameters
    ----------
    p
        p-values, shape (G, K), float64.

    Returns
    -------
    numpy.ndarray
        Combined p-values, shape (G,), float64.

    Raises
    ------
    ValueError
        When a p-value is NaN or outside [0, 1].
    """
    if not bool(np.all((p >= 0.0) & (p <= 1.0))):
        msg = "expected p-values in [0, 1], got others or NaN"
        raise ValueError(msg)
    with np.errstate(divide="ignore", over="ignore"):
        quantile = np.where(p > 0.5, -1.0 / np.tan(np.pi * (1.0 - p)), 1.0 / np.tan(np.pi * p))
    inner = np.where((p > 0.0) & (p < 1.0), quantile, 0.0)
    combined: NDArray[np.float64] = np.arctan2(1.0, inner.mean(axis=1)) / np.pi
    combined[(p == 1.0).any(axis=1)] = 1.0
    combined[(p == 0.0).any(axis=1)] = 0.0
    return combined


def adjust_by(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Adjust p-values for the false discovery rate under any dependence (Benjamini and Yekutieli).

    ``q_(r) = min over t >= r of (m c_m / t) p_(t)``, at most 1, with ``c_m = sum 1/i`` over the m tests.

    Parameters
    ----------
    p
        p-values without NaN, shape (m,), float64.

    Returns
    -------
    numpy.ndarray
        Adjusted p-values, shape (m,), float64.

    Examples
    --------
    >>> adjust_by(np.array([0.01, 0.5])).round(3).tolist()
    [0.03, 0.75]
    """
    m = len(p)
    rank = np.arange(m, 0, -1)
    order = np.argsort(-p, kind="stable")
    bound = np.sum(1.0 / np.arange(1, m + 1)) * m
    adjusted = np.empty(m)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(bound / rank * p[order]))
    return adjusted


def _check_coords(coords: NDArray[np.float64]) -> NDArray[np.float64]:
    coords = np.asarray(coords, np.float64)
    if coords.ndim != 2 or coords.shape[0] < 2 or coords.shape[1] < 1:
        msg = f"expected coordinates of shape (cells, axes) with at least 2 cells, got {coords.shape}"
        raise ValueError(msg)
    if not bool(np.isfinite(coords).all()):
        msg = f"expected finite coordinates, got {int((~np.isfinite(coords)).any(axis=1).sum())} cells with others"
        raise ValueError(msg)
    return coords


def _kernel_bases(coords: NDArray[np.float64]) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Give orthonormal bases of the usable kernels side by side, and the names of the others."""
    centred = coords - coords.mean(axis=0)
    lengths = np.quantile(np.abs(centred), SCALES, axis=0)
    transforms = [centred]
    with np.errstate(divide="ignore", invalid="ignore"):
        transforms += [np.exp(-(centred**2) / (2.0 * length**2)) for length in lengths]
        transforms += [np.cos(2.0 * np.pi * centred / length) for length in lengths]
    bases = {name: _orthonormal(z) for name, z in zip(KERNELS, transforms, strict=True)}
    usable = [basis for basis in bases.values() if basis is not None]
    if not usable:
        msg = f"expected coordinates that span their {coords.shape[1]} axes, got cells on a line or in one place"
        raise ValueError(msg)
    return np.hstack(usable), tuple(name for name, basis in bases.items() if basis is None)


def _orthonormal(z: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Give an orthonormal basis of the centred columns, or nothing where they are constant or collinear."""
    if not bool(np.isfinite(z).all()):
        return None
    centred = z - z.mean(axis=0)
    length = np.linalg.norm(centred, axis=0)
    if bool(np.any(length <= CONSTANT * np.linalg.norm(z, axis=0))):
        return None
    basis, values, _ = np.linalg.svd(centred / length, full_matrices=False)
    return basis if values[-1] > SINGULAR * values[0] else None
