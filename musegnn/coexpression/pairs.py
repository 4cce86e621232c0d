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

from musegnn.coexpression.cscore import ROWS, ExactSums, PairStatistics, weight_slopes
from musegnn.coexpression.edges import BIN_WIDTH
from musegnn.coexpression.irls import DepthMoments, IRLSFit, MomentScan
from musegnn.coexpression.scan import kept_blocks
from musegnn.coexpression.tasks import load
from musegnn.data_store.records import PairTable
from musegnn.kernels.gram import WeightedGram

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from musegnn.coexpression.cscore import Stripe
    from musegnn.coexpression.irls import NegativeVariance
    from musegnn.coexpression.scan import Shard
    from musegnn.coexpression.tasks import Arrays
    from musegnn.config import GraphConfig
    from musegnn.data_store.readers import CountSource
    from musegnn.kernels.gram.api import GramImpl
    from musegnn.kernels.moments import DepthBasis

HISTOGRAM_BINS = 801
ENTRIES = 1 << 22


def extract_shard(
    source: CountSource,
    config: GraphConfig,
    shard: Shard,
    scanned: Path,
    genes: NDArray[np.intp],
    basis: DepthBasis,
) -> Arrays:
    """Copy the counts of the selected genes of one shard, and sum their moments.

    Parameters
    ----------
    source, config, shard, scanned
        As in :func:`~musegnn.coexpression.scan.kept_blocks`.
    genes
        Columns of the source in ascending density, shape (N,).
    basis
        The expansion over the range of depths.

    Returns
    -------
    dict
        The counts as CSR in the smallest types that hold them, ``depth``, and the moments at the nodes.
    """
    scan = MomentScan(len(genes), basis)
    parts, depths = [], []
    for _, block, depth in kept_blocks(source, config, shard, scanned, genes):
        scan.update(block, depth)
        parts.append(block)
        depths.append(depth)
    lengths = np.concatenate([np.zeros(1, np.int64), *(np.diff(block.indptr) for block in parts)])
    indices = np.concatenate([np.zeros(0, np.int32), *(block.indices for block in parts)])
    data = np.concatenate([np.zeros(0, np.int32), *(block.data for block in parts)])
    moments = scan.finish()
    return {
        "indptr": np.cumsum(lengths),
        "indices": indices.astype(np.min_scalar_type(max(len(genes) - 1, 0))),
        "data": data.astype(np.min_scalar_type(int(data.max(initial=0)))),
        "depth": np.concatenate([np.zeros(0), *depths]),
        "first": moments.first,
        "second": moments.second,
        "cells": moments.cells,
    }


def extracted_blocks(paths: Sequence[Path], n_genes: int) -> Iterator[tuple[csr_matrix, NDArray[np.float64]]]:
    """Read what :func:`extract_shard` wrote, in order.

    Yields
    ------
    tuple
        Counts, shape (b, N), int32, of at most 2^22 entries unless one cell has more, and depths, shape (b,), float64.
    """
    for path in paths:
        part = load(path)
        indptr, depth = part["indptr"], part["depth"]
        first = 0
        while first < len(depth):
            last = max(int(np.searchsorted(indptr, indptr[first] + ENTRIES, side="right")) - 1, first + 1)
            entries = slice(indptr[first], indptr[last])
            counts = (part["data"][entries].astype(np.int32), part["indices"][entries].astype(np.int32))
            block = csr_matrix((*counts, indptr[first : last + 1] - indptr[first]), shape=(last - first, n_genes))
            yield block, depth[first:last]
            first = last


def merge_moments(paths: Iterable[Path], basis: DepthBasis) -> DepthMoments:
    """Add the moments of all shards in their order."""
    first = second = cells = None
    for path in paths:
        part = load(path)
        if first is None or second is None or cells is None:
            first, second, cells = part["first"], part["second"], part["cells"]
        else:
            first += part["first"]
            second += part["second"]
            cells += part["cells"]
    assert first is not None
    assert second is not None
    assert cells is not None
    return DepthMoments(nodes=basis.nodes, first=first, second=second, cells=cells)


class Fitted(NamedTuple):
    """What the pairs of N genes in ascending density are computed from."""

    moments: DepthMoments
    fit: IRLSFit
    mode: NegativeVariance

    def to_arrays(self) -> Arrays:
        """Return plain arrays, for a file that tasks read."""
        return {
            "nodes": self.moments.nodes,
            "first": self.moments.first,
            "second": self.moments.second,
            "cells": self.moments.cells,
            "mu": self.fit.mu,
            "sigma": self.fit.sigma,
            "scalars": np.array([self.fit.theta_median, self.fit.iterations, self.fit.converged], dtype=np.float64),
            "mode": np.array(self.mode),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Fitted:
        """Undo :meth:`to_arrays`."""
        median, iterations, converged = arrays["scalars"].tolist()
        fit = IRLSFit(
            mu=arrays["mu"],
            sigma=arrays["sigma"],
            theta_median=median,
            iterations=int(iterations),
            converged=bool(converged),
        )
        moments = DepthMoments(**{name: arrays[name] for name in ("nodes", "first", "second", "cells")})
        return cls(moments, fit, arrays["mode"].item())


def exact_sums(fitted: Path, extracted: Sequence[Path]) -> Arrays:
    """Sum the pairs with genes of negative variance as they are defined; for mode ``reference``."""
    fit = Fitted.from_arrays(load(fitted)).fit
    sums = ExactSums(fit)
    for block, depth in extracted_blocks(extracted, len(fit.mu)):
        sums.update(block, depth)
    return {"numerator": sums.numerator, "denominator": sums.denominator}


def cut_stripes(weight: NDArray[np.float64], parallel: int, max_bytes: int) -> list[tuple[int, int]]:
    """Share rows out to stripes of about equal work.

    Parameters
    ----------
    weight
        Work of each row, shape (N,), positive.
    parallel
        Smallest number of stripes wanted.
    max_bytes
        Largest size of the sums of a stripe; one of 64 rows may exceed it.

    Returns
    -------
    list of tuple
        First row and end; firsts are multiples of 64.
    """
    n_genes = len(weight)
    upto = np.concatenate([[0.0], np.cumsum(weight)])
    stripes, start = [], 0
    while start < n_genes:
        share = upto[start] + upto[-1] / parallel
        stop = int(np.searchsorted(upto, share * (1.0 + 1e-9), side="right")) - 1
        while stop > start + ROWS and WeightedGram.nbytes(n_genes, (start, stop)) > max_bytes:
            stop -= ROWS
        stop = min(max(-(-stop // ROWS) * ROWS, start + ROWS), n_genes)
        while stop - ROWS > start and WeightedGram.nbytes(n_genes, (start, stop)) > max_bytes:
            stop = (stop - 1) // ROWS * ROWS
        stripes.append((start, stop))
        start = stop
    return stripes


def gram_stripe(
    fitted: Path,
    extracted: Sequence[Path],
    exact: Path | None,
    rows: tuple[int, int],
    scattered: int,
    z_store: float,
    device: str,
) -> Arrays:
    """Add all cells to some rows of the Gram matrices, and keep the pairs that are to be stored.

    Parameters
    ----------
    fitted
        File of :class:`Fitted`.
    extracted
        Files of :func:`extract_shard`, in order.
    exact
        File of :func:`exact_sums`, for mode ``reference``.
    rows
        First row, a multiple of 64, and end.
    scattered
        See :class:`~musegnn.kernels.gram.WeightedGram`.
    z_store
        Bound on ``abs(z)``.
    device
        ``cpu``, or a torch device for dense sums there.

    Returns
    -------
    dict
        ``histogram`` of ``abs(z)``, and rows, columns, z and estimate of the stored pairs for every 64 rows.
    """
    about = Fitted.from_arrays(load(fitted))
    slopes = weight_slopes(about.fit, about.mode)
    impl: GramImpl = "auto" if device == "cpu" else "torch"
    gram = WeightedGram(about.fit.mu, slopes, rows=rows, scattered=scattered, impl=impl, device=device)
    for block, depth in extracted_blocks(extracted, len(about.fit.mu)):
        gram.add(block, depth)
    sums = None
    if exact is not None:
        sums = ExactSums(about.fit)
        for name, values in load(exact).items():
            setattr(sums, name, values)
    statistics = PairStatistics(about.moments, about.fit, about.mode, sums)
    return keep_pairs(statistics.stripes(gram.values(), rows[0]), z_store)


def keep_pairs(stripes: Iterable[Stripe], z_store: float) -> Arrays:
    """Keep the pairs with ``abs(z) >= z_store`` and count all tested ones."""
    histogram = np.zeros(HISTOGRAM_BINS, dtype=np.int64)
    kept: Arrays = {}
    for k, stripe in enumerate(stripes):
        tested = np.triu(np.isfinite(stripe.z), 1)
        magnitude = np.abs(stripe.z)
        bins = np.minimum(magnitude[tested] / BIN_WIDTH, HISTOGRAM_BINS - 1).astype(np.int64)
        histogram += np.bincount(bins, minlength=HISTOGRAM_BINS)
        rows, columns = np.nonzero(tested & (magnitude >= z_store))
        kept[f"rows{k}"] = (rows + stripe.start).astype(np.int32)
        kept[f"columns{k}"] = (columns + stripe.start).astype(np.int32)
        kept[f"z{k}"] = stripe.z[rows, columns].astype(np.float32)
        kept[f"estimate{k}"] = stripe.estimate[rows, columns].astype(np.float32)
    return {"histogram": histogram, **kept}


def collect_pairs(parts: Sequence[Mapping[str, NDArray[Any]]], order: NDArray[np.intp], z_store: float) -> PairTable:
    """Put the pairs of all stripes into one symmetric table.

    What is made is the table and one stripe of 64 rows at a time; parts are gone through twice.

    Parameters
    ----------
    parts
        Of :func:`keep_pairs`; may read arrays when asked for them.
    order
        Gene at each row of the stripes, shape (N,).
    z_store
        Bound on ``abs(z)``.

    Returns
    -------
    PairTable
        Symmetric, sorted, without diagonal.
    """
    n_genes = len(order)
    place = order.astype(np.int32)
    stripes = [(part, k) for part in parts for k in range((len(part) - 1) // 4)]
    degree = np.zeros(n_genes, dtype=np.int64)
    for part, k in stripes:
        for end in ("rows", "columns"):
            degree += np.bincount(place[part[f"{end}{k}"]], minlength=n_genes)
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(degree)])
    indices = np.empty(int(indptr[-1]), dtype=np.int32)
    # A pair of float32 travels as one complex64 when scipy sorts each row.
    both = np.empty(len(indices), dtype=np.complex64)
    free = indptr[:-1].copy()
    for part, k in stripes:
        rows, columns = place[part[f"rows{k}"]], place[part[f"columns{k}"]]
        values = np.empty(len(rows), dtype=np.complex64)
        values.real, values.imag = part[f"z{k}"], part[f"estimate{k}"]
        for row, column in ((rows, columns), (columns, rows)):
            by_row = np.argsort(row, kind="stable")
            count = np.bincount(row, minlength=n_genes)
            target = np.arange(len(row)) + np.repeat(free - (np.cumsum(count) - count), count)
            indices[target], both[target] = column[by_row], values[by_row]
            free += count
    matrix = csr_matrix((both, indices, indptr), shape=(n_genes, n_genes))
    matrix.sort_indices()
    histogram = np.sum([np.zeros(HISTOGRAM_BINS, np.int64), *(part["histogram"] for part in parts)], axis=0)
    return PairTable(
        indptr=indptr,
        indices=matrix.indices.astype(np.int32, copy=False),
        z=matrix.data.real.copy(),
        estimate=matrix.data.imag.copy(),
        n_tests=int(histogram.sum()),
        z_store=z_store,
        histogram=histogram,
    )
