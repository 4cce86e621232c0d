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

from musegnn.coexpression.counts import CountTable
from musegnn.kernels.moments import accumulate_moments

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.coexpression.counts import GeneStats

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
    """Tests of G genes with K = 11 kernels; NaN for genes without counts and for skipped kernels.

    Attributes
    ----------
    statistic, p_kernel
        Of each kernel, shape (G, K), float64.
    p
        Cauchy combination over the kernels, shape (G,), float64.
    p_adjusted
        Benjamini-Yekutieli adjustment over the genes with counts, shape (G,), float64.
    kernels, skipped
        Names of the kernels in column order, and of those whose transform is degenerate for these coordinates.
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


class SparkXBasis:
    """Orthonormal columns of the eleven kernels, and of covariates, as functions of a cell's place.

    It holds a few numbers per kernel, so that tasks can evaluate the columns of their own cells. Cells without counts
    carry no information and are to be left out.

    Parameters
    ----------
    coords
        Coordinates of all cells used, shape (C, D).
    covariates
        Numbers whose linear effect, beside a constant, is taken out of the kernels and out of the null distribution,
        shape (C, q); ``None``: the constant alone.

    Raises
    ------
    ValueError
        When numbers are not finite, covariates are collinear, or every kernel is degenerate: cells on a line or in one
        place.
    """

    def __init__(self, coords: NDArray[np.float64], covariates: NDArray[np.float64] | None = None) -> None:
        coords = _check_coords(coords)
        self.n_cells, self.n_axes = int(coords.shape[0]), int(coords.shape[1])
        self._centre: NDArray[np.float64] = coords.mean(axis=0)
        self._lengths = np.quantile(np.abs(coords - self._centre), SCALES, axis=0)
        self._design = None if covariates is None else _Columns.fit(_check_covariates(covariates, self.n_cells))
        design = None if self._design is None else self._design.apply(_check_covariates(covariates, self.n_cells))
        self._kernels: dict[str, tuple[_Columns, NDArray[np.float64] | None]] = {}
        for name in KERNELS:
            z = self._transform(name, coords)
            if not bool(np.isfinite(z).all()):
                continue
            effect = None if design is None else design.T @ (z - z.mean(axis=0))
            rest = z if effect is None or design is None else z - design @ effect
            columns = _Columns.fit(rest, scale=np.linalg.norm(z, axis=0))
            if columns is not None:
                self._kernels[name] = columns, effect
        if covariates is not None and self._design is None:
            msg = "expected covariates that differ between cells and are not collinear"
            raise ValueError(msg)
        if not self._kernels:
            msg = f"expected coordinates that span their {self.n_axes} axes, got cells on a line or in one place"
            raise ValueError(msg)

    @property
    def skipped(self) -> tuple[str, ...]:
        """Names of the kernels whose transform is degenerate."""
        return tuple(name for name in KERNELS if name not in self._kernels)

    @property
    def n_design(self) -> int:
        """Columns that stand for covariates, the last ones of :meth:`rows`."""
        return 0 if self._design is None else int(self._design.weights.shape[1])

    @property
    def n_columns(self) -> int:
        """Columns of :meth:`rows`."""
        return self.n_axes * len(self._kernels) + self.n_design

    def rows(self, coords: NDArray[np.float64], covariates: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Evaluate the columns for some of the cells, given their coordinates (b, D) and covariates (b, q).

        There are D columns of each usable kernel, then those of the covariates.
        """
        design = None
        if self._design is not None:
            assert covariates is not None
            design = self._design.apply(covariates)
        parts: list[NDArray[np.float64]] = []
        for name, (columns, effect) in self._kernels.items():
            z = self._transform(name, coords)
            parts.append(columns.apply(z if effect is None or design is None else z - design @ effect))
        if design is not None:
            parts.append(design)
        result: NDArray[np.float64] = np.ascontiguousarray(np.hstack(parts))
        return result

    def _transform(self, name: str, coords: NDArray[np.float64]) -> NDArray[np.float64]:
        centred: NDArray[np.float64] = np.asarray(coords, np.float64) - self._centre
        if name == KERNELS[0]:
            return centred
        length = self._lengths[int(name[-1]) - 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            if name.startswith("gaussian"):
                result: NDArray[np.float64] = np.exp(-(centred**2) / (2.0 * length**2))
            else:
                result = np.cos(2.0 * np.pi * centred / length)
        return result


@dataclass(frozen=True, slots=True)
class _Columns:
    """A linear map from some numbers of a cell to orthonormal, centred columns over the cells it was fitted on."""

    mean: NDArray[np.float64]
    weights: NDArray[np.float64]

    @classmethod
    def fit(cls, z: NDArray[np.float64], *, scale: NDArray[np.float64] | None = None) -> _Columns | None:
        """Fit to (C, D); ``None`` where columns are constant or collinear, judged against their `scale`."""
        mean = z.mean(axis=0)
        centred = z - mean
        length = np.linalg.norm(centred, axis=0)
        if bool(np.any(length <= CONSTANT * (np.linalg.norm(z, axis=0) if scale is None else scale))):
            return None
        _, values, axes = np.linalg.svd(centred / length, full_matrices=False)
        if not values[-1] > SINGULAR * values[0]:
            return None
        return cls(mean, (axes.T / values) / length[:, None])

    def apply(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        result: NDArray[np.float64] = (z - self.mean) @ self.weights
        return result


class SparkXScan:
    """The tests of G genes as one pass over blocks of cells.

    The sums run over the cells in their order, so that they do not depend on how cells are cut into blocks; those of
    parts of the cells add up with :meth:`merge`.
    """

    def __init__(self, basis: SparkXBasis, n_genes: int) -> None:
        self._basis = basis
        self.cross: NDArray[np.float64] = np.zeros((n_genes, basis.n_columns))
        self.n_seen = 0

    def update(
        self, block: csr_matrix, coords: NDArray[np.float64], covariates: NDArray[np.float64] | None = None
    ) -> None:
        """Add int32 counts (B, G) of cells with these coordinates (B, D) and covariates (B, q), each cell once."""
        accumulate_moments(block, self._basis.rows(coords, covariates), self.cross, None)
        self.n_seen += block.shape[0]

    def merge(self, cross: NDArray[np.float64], n_seen: int) -> None:
        """Add the sums of other cells."""
        self.cross += cross
        self.n_seen += n_seen

    def result(self, stats: GeneStats) -> SparkXResult:
        """Compute the tests from the sums of the counts of the G genes over all cells."""
        n_cells = self._basis.n_cells
        if not self.n_seen == n_cells == stats.n_cells:
            msg = f"expected the counts of {n_cells} cells, got {self.n_seen}, and sums over {stats.n_cells}"
            raise ValueError(msg)
        used = np.array([name not in self._basis.skipped for name in KERNELS])
        expressed = stats.total_squares > 0.0
        squares, total = stats.total_squares[expressed, None], stats.total[expressed, None]
        kernels, design = np.split(self.cross[expressed], [self.cross.shape[1] - self._basis.n_design], axis=1)
        quadratic = (kernels**2).reshape(len(squares), -1, self._basis.n_axes).sum(axis=2)
        scale = (n_cells * squares - total**2) / (n_cells * squares) - (design**2).sum(axis=1, keepdims=True) / squares
        statistic = np.full((len(expressed), len(KERNELS)), np.nan)
        p_kernel = np.full_like(statistic, np.nan)
        p = np.full(len(expressed), np.nan)
        adjusted = np.full(len(expressed), np.nan)
        tested = np.ix_(expressed, used)
        statistic[tested] = n_cells * quadratic / squares
        p_kernel[tested] = exact_p_values(n_cells * quadratic / squares, scale, self._basis.n_axes)
        p[expressed] = combine_cauchy(p_kernel[tested])
        adjusted[expressed] = adjust_by(p[expressed])
        return SparkXResult(
            statistic=statistic,
            p_kernel=p_kernel,
            p=p,
            p_adjusted=adjusted,
            kernels=KERNELS,
            skipped=self._basis.skipped,
        )


def sparkx(
    counts: csr_matrix, coords: NDArray[np.float64], covariates: NDArray[np.float64] | None = None
) -> SparkXResult:
    """Test all genes of a matrix in memory, but for cells without counts.

    Parameters
    ----------
    counts
        Counts, cells x genes, shape (C, G).
    coords, covariates
        As of :class:`SparkXBasis`.
    """
    counts = csr_matrix(counts)
    if len(coords) != counts.shape[0]:
        msg = f"expected coordinates of {counts.shape[0]} cells, got {len(coords)}"
        raise ValueError(msg)
    filled = np.flatnonzero(np.asarray(counts.sum(axis=1)).ravel() > 0)
    kept = counts[filled].astype(np.int32)
    kept.eliminate_zeros()
    table = CountTable(counts.shape[1])
    table.update(kept, np.ones(len(filled), dtype=np.bool_))
    of_kept = None if covariates is None else _check_covariates(covariates, len(coords))[filled]
    scan = SparkXScan(SparkXBasis(coords[filled], of_kept), counts.shape[1])
    scan.update(kept, coords[filled], of_kept)
    return scan.result(table.stats(len(filled)))


def exact_p_values(statistic: NDArray[np.float64], scale: NDArray[np.float64], degrees: int) -> NDArray[np.float64]:
    """Return the upper tails of ``scale chi2_degrees``; 1 where the scale is 0, for a constant gene."""
    scale = np.broadcast_to(scale, statistic.shape)
    ratio = np.divide(statistic, scale, out=np.zeros_like(statistic), where=scale > 0.0)
    p: NDArray[np.float64] = np.asarray(np.exp(-ratio / 2.0) if degrees == 2 else chdtrc(float(degrees), ratio))
    return p


def combine_cauchy(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Combine the p-values of each row by the mean of their Cauchy quantiles (ACAT, equal weights).

    Any 0 gives 0, and otherwise any 1 gives 1. Quantiles are computed as cotangents, which keep full precision at
    both ends. Values that are no p-values are refused.
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
    """Adjust p-values, shape (m,), for the false discovery rate under any dependence (Benjamini and Yekutieli).

    ``q_(r) = min over t >= r of (m c_m / t) p_(t)``, at most 1, with ``c_m = sum 1/i`` over the m tests.

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


def _check_covariates(covariates: NDArray[np.float64] | None, n_cells: int) -> NDArray[np.float64]:
    values = np.asarray(covariates, np.float64)
    if values.ndim != 2 or len(values) != n_cells or not bool(np.isfinite(values).all()):
        msg = f"expected finite covariates of shape ({n_cells}, q), got shape {values.shape}"
        raise ValueError(msg)
    return values
