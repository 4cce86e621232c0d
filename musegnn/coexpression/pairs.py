"""CS-CORE as stages of a build: counts of the selected genes, Gram stripes, and the table of pairs.

The counts of the N selected genes are copied once into small files (genes in ascending density, see
``kernels/gram/README.md``), which every later stage reads instead of the source. Each stripe of rows has one task that
adds all cells in their order, so its bits depend neither on the number of stripes nor on where they are computed.

Legend: n cells, N genes, K nodes of the moment expansion, P pairs of a stripe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from musegnn.coexpression.cscore import ROWS, PairStatistics, weight_slopes
from musegnn.coexpression.edges import BIN_WIDTH
from musegnn.coexpression.halves import certainty, compare_halves, in_first_half
from musegnn.coexpression.irls import DepthMoments, IRLSFit, MomentScan
from musegnn.coexpression.tasks import load
from musegnn.data_store.records import PairTable
from musegnn.kernels.gram import WeightedGram

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from musegnn.coexpression.cscore import Stripe
    from musegnn.coexpression.scan import ScannedCells
    from musegnn.kernels.gram.api import GramImpl
    from musegnn.kernels.moments import DepthBasis

HISTOGRAM_BINS = 801
ENTRIES = 1 << 22
HALVES = (True, False)


class ExtractedCounts(NamedTuple):
    """Counts of the N genes in the kept cells of a range, and their moments in either half of the cells.

    `indptr`, `indices` and `data` are CSR in the smallest types that hold the values; `is_first` tells the half of each
    cell; `first`, `second` and `cells` are as in :class:`~musegnn.coexpression.irls.DepthMoments`, along a first axis
    of both halves.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.unsignedinteger]
    data: NDArray[np.unsignedinteger]
    depth: NDArray[np.float64]
    is_first: NDArray[np.bool_]
    first: NDArray[np.float64]
    second: NDArray[np.float64]
    cells: NDArray[np.float64]


def extract_range(cells: ScannedCells, genes: NDArray[np.intp], basis: DepthBasis) -> ExtractedCounts:
    """Copy the counts of the genes in these columns of the source, shape (N,), of one range, and sum their moments."""
    scans = [MomentScan(len(genes), basis) for _ in HALVES]
    is_first = in_first_half(cells.cells.start + np.flatnonzero(cells.keep()))
    parts, depths = [], [np.zeros(0)]
    for place, block, depth in cells.blocks(genes):
        for scan, half in zip(scans, HALVES, strict=True):
            own = is_first[place] == half
            scan.update(block[own], depth[own])
        parts.append(block)
        depths.append(depth)
    lengths = np.concatenate([np.zeros(1, np.int64), *(np.diff(block.indptr) for block in parts)])
    indices = np.concatenate([np.zeros(0, np.int32), *(block.indices for block in parts)])
    data = np.concatenate([np.zeros(0, np.int32), *(block.data for block in parts)])
    moments = [scan.finish() for scan in scans]
    return ExtractedCounts(
        indptr=np.cumsum(lengths),
        indices=indices.astype(np.min_scalar_type(max(len(genes) - 1, 0))),
        data=data.astype(np.min_scalar_type(int(data.max(initial=0)))),
        depth=np.concatenate(depths),
        is_first=is_first,
        first=np.stack([half.first for half in moments]),
        second=np.stack([half.second for half in moments]),
        cells=np.stack([half.cells for half in moments]),
    )


def extracted_blocks(
    paths: Sequence[Path], n_genes: int, *, half: bool | None = None
) -> Iterator[tuple[csr_matrix, NDArray[np.float64]]]:
    """Read what :func:`extract_range` wrote, in order: counts, shape (b, N), int32, and depths, shape (b,), float64.

    A block has at most 2^22 entries unless one cell has more. `half` selects the cells of the first half (true) or of
    the other.
    """
    for path in paths:
        part = load(path, ExtractedCounts)
        indptr, depth = part.indptr, part.depth
        first = 0
        while first < len(depth):
            last = max(int(np.searchsorted(indptr, indptr[first] + ENTRIES, side="right")) - 1, first + 1)
            entries = slice(indptr[first], indptr[last])
            counts = (part.data[entries].astype(np.int32), part.indices[entries].astype(np.int32))
            block = csr_matrix((*counts, indptr[first : last + 1] - indptr[first]), shape=(last - first, n_genes))
            if half is None:
                yield block, depth[first:last]
            else:
                own = part.is_first[first:last] == half
                yield block[own], depth[first:last][own]
            first = last


def merge_moments(paths: Iterable[Path], n_genes: int, basis: DepthBasis) -> HalfMoments:
    """Add the moments of all ranges in their order."""
    order = basis.order
    total = HalfMoments(basis.nodes, np.zeros((2, n_genes, order)), np.zeros((2, n_genes, order)), np.zeros((2, order)))
    for path in paths:
        part = load(path, ExtractedCounts)
        total.first[:] += part.first
        total.second[:] += part.second
        total.cells[:] += part.cells
    return total


class HalfMoments(NamedTuple):
    """Moments of either half of the cells: fields of :class:`~musegnn.coexpression.irls.DepthMoments`, stacked."""

    nodes: NDArray[np.float64]
    first: NDArray[np.float64]
    second: NDArray[np.float64]
    cells: NDArray[np.float64]

    @property
    def whole(self) -> DepthMoments:
        """The moments of all cells."""
        return DepthMoments(self.nodes, self.first.sum(axis=0), self.second.sum(axis=0), self.cells.sum(axis=0))

    @property
    def halves(self) -> list[DepthMoments]:
        """The moments of the first half and of the other."""
        return [DepthMoments(self.nodes, *part) for part in zip(self.first, self.second, self.cells, strict=True)]


class PairInputs(NamedTuple):
    """What all stripes of pairs of N genes are computed from.

    The first four fields are those of :class:`HalfMoments`, the next five those of
    :class:`~musegnn.coexpression.irls.IRLSFit`. The pairs of the first `scattered` genes are summed one by one. A
    `device` other than ``cpu`` is a torch device, which sums all pairs in dense form.
    """

    nodes: NDArray[np.float64]
    first: NDArray[np.float64]
    second: NDArray[np.float64]
    cells: NDArray[np.float64]
    mu: NDArray[np.float64]
    sigma: NDArray[np.float64]
    theta_median: float
    iterations: int
    converged: bool
    scattered: int
    z_store: float
    device: str

    @property
    def moments(self) -> HalfMoments:
        """The sums over depth."""
        return HalfMoments(*self[:4])

    @property
    def fit(self) -> IRLSFit:
        """The means and variances."""
        return IRLSFit(*self[4:9])


def cut_stripes(weight: NDArray[np.float64], parallel: int, max_bytes: int) -> list[tuple[int, int]]:
    """Divide rows into at least `parallel` stripes of about equal work, whose firsts are multiples of 64.

    Parameters
    ----------
    weight
        Work of each row, shape (N,), positive.
    parallel
        Smallest number of stripes.
    max_bytes
        Largest size of the sums of a stripe; one of 64 rows may exceed it.
    """
    n_genes = len(weight)
    upto = np.concatenate([[0.0], np.cumsum(weight)])
    stripes, start = [], 0
    while start < n_genes:
        share = upto[start] + upto[-1] / parallel
        stop = int(np.searchsorted(upto, share * (1.0 + 1e-9), side="right")) - 1
        while stop > start + ROWS and sums_bytes(n_genes, (start, stop)) > max_bytes:
            stop -= ROWS
        stop = min(max(-(-stop // ROWS) * ROWS, start + ROWS), n_genes)
        while stop - ROWS > start and sums_bytes(n_genes, (start, stop)) > max_bytes:
            stop = (stop - 1) // ROWS * ROWS
        stripes.append((start, stop))
        start = stop
    return stripes


class KeptPairs(NamedTuple):
    """Pairs of a stripe that are stored, and how many were tested.

    Attributes
    ----------
    histogram
        Tested pairs by ``abs(z)``, see :class:`~musegnn.data_store.records.PairTable`.
    ends
        End of the pairs of every 64 rows, int64.
    rows, columns, z, estimate
        Genes and statistics of each pair, shape (P,).
    agreement
        Sums over all pairs of the stripe, stored or not, of :func:`~musegnn.coexpression.halves.compare_halves`.
    """

    histogram: NDArray[np.int64]
    ends: NDArray[np.int64]
    rows: NDArray[np.int32]
    columns: NDArray[np.int32]
    z: NDArray[np.float32]
    estimate: NDArray[np.float32]
    agreement: NDArray[np.float64]


def sums_bytes(n_genes: int, rows: tuple[int, int]) -> int:
    """Return the bytes of the sums of a stripe: those of all cells, and those of the test in the first half."""
    return WeightedGram.nbytes(n_genes, rows) * 3 // 2


def gram_stripe(inputs: Path, extracted: Sequence[Path], rows: tuple[int, int]) -> KeptPairs:
    """Add all cells to some rows of the Gram matrices, from a multiple of 64 on, and keep the pairs to be stored.

    `inputs` is a file of :class:`PairInputs`, `extracted` the files of :func:`extract_range`, in order.
    """
    about = load(inputs, PairInputs)
    fit = about.fit
    impl: GramImpl = "auto" if about.device == "cpu" else "torch"
    gram = WeightedGram(
        fit.mu, weight_slopes(fit), rows=rows, scattered=about.scattered, impl=impl, device=about.device
    )
    for block, depth in extracted_blocks(extracted, len(fit.mu), half=True):
        gram.add(block, depth)
    first = gram.values()[:, :, 1].copy()
    for block, depth in extracted_blocks(extracted, len(fit.mu), half=False):
        gram.add(block, depth)
    sums, moments = gram.values(), about.moments
    halves = [PairStatistics(half, fit) for half in moments.halves]
    agreement = compare_halves(first, sums[:, :, 1], halves, rows[0])
    return keep_pairs(PairStatistics(moments.whole, fit).stripes(sums, rows[0]), about.z_store, agreement)


def keep_pairs(stripes: Iterable[Stripe], z_store: float, agreement: NDArray[np.float64]) -> KeptPairs:
    """Keep the pairs with ``abs(z) >= z_store`` and count all tested ones."""
    histogram = np.zeros(HISTOGRAM_BINS, dtype=np.int64)
    parts = []
    for stripe in stripes:
        tested = np.triu(np.isfinite(stripe.z), 1)
        magnitude = np.abs(stripe.z)
        bins = np.minimum(magnitude[tested] / BIN_WIDTH, HISTOGRAM_BINS - 1).astype(np.int64)
        histogram += np.bincount(bins, minlength=HISTOGRAM_BINS)
        rows, columns = np.nonzero(tested & (magnitude >= z_store))
        z, estimate = stripe.z[rows, columns], stripe.estimate[rows, columns]
        places = (rows + stripe.start).astype(np.int32), (columns + stripe.start).astype(np.int32)
        parts.append((*places, z.astype(np.float32), estimate.astype(np.float32)))
    ends = np.cumsum([len(part[0]) for part in parts])
    kept: list[NDArray[Any]] = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return KeptPairs(*[histogram, ends, *kept, agreement])


def collect_pairs(paths: Sequence[Path], order: NDArray[np.intp], z_store: float) -> PairTable:
    """Merge the files of :func:`gram_stripe` into one symmetric table, sorted, without diagonal.

    The gene of each row of the stripes is in `order`, shape (N,). Files are read twice, one at a time, so that little
    more than the table is in memory.
    """
    n_genes = len(order)
    place = order.astype(np.int32)
    degree, histogram = np.zeros(n_genes, dtype=np.int64), np.zeros(HISTOGRAM_BINS, dtype=np.int64)
    for path in paths:
        part = load(path, KeptPairs)
        degree += np.bincount(place[part.rows], minlength=n_genes) + np.bincount(place[part.columns], minlength=n_genes)
        histogram += part.histogram
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(degree)])
    indices = np.empty(int(indptr[-1]), dtype=np.int32)
    # A pair of float32 travels as one complex64 when scipy sorts each row.
    both = np.empty(len(indices), dtype=np.complex64)
    free = indptr[:-1].copy()
    for path in paths:
        part = load(path, KeptPairs)
        for start, end in zip([0, *part.ends[:-1]], part.ends, strict=True):
            rows, columns = place[part.rows[start:end]], place[part.columns[start:end]]
            values = np.empty(len(rows), dtype=np.complex64)
            values.real, values.imag = part.z[start:end], part.estimate[start:end]
            for row, column in ((rows, columns), (columns, rows)):
                by_row = np.argsort(row, kind="stable")
                count = np.bincount(row, minlength=n_genes)
                target = np.arange(len(row)) + np.repeat(free - (np.cumsum(count) - count), count)
                indices[target], both[target] = column[by_row], values[by_row]
                free += count
    matrix = csr_matrix((both, indices, indptr), shape=(n_genes, n_genes))
    matrix.sort_indices()
    return PairTable(
        indptr=indptr,
        indices=matrix.indices.astype(np.int32, copy=False),
        z=matrix.data.real.copy(),
        estimate=matrix.data.imag.copy(),
        n_tests=int(histogram.sum()),
        z_store=z_store,
        histogram=histogram,
    )


def collect_certainty(paths: Sequence[Path], order: NDArray[np.intp]) -> NDArray[np.float32]:
    """Merge the files of :func:`gram_stripe` into the certainty of the genes in `order`, shape (N,)."""
    sums = np.zeros((6, len(order)))
    for path in paths:
        sums += load(path, KeptPairs).agreement
    result = np.empty(len(order), dtype=np.float32)
    result[order] = certainty(sums)
    return result
