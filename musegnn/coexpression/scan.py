"""The first pass over the counts: quality control, depths, sums per gene and the subsample for sctransform.

Values are validated by the source as blocks are read, so validation costs no pass of its own.

Legend: C cells of the source, n cells kept, S cells of the subsample, G genes of the source, M genes kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix, vstack

from musegnn.coexpression.sctransform import median_of_histogram
from musegnn.coexpression.stats import GeneStats
from musegnn.errors import InputError
from musegnn.kernels.moments import accumulate_gene_sums
from musegnn.random import stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from musegnn.config import GraphConfig, QCConfig
    from musegnn.data_store.readers import CountSource

MIN_CELLS = 50
MIN_GENES = 2
MITOCHONDRIAL = "MT-"
REASONS = ("no_counts", "few_counts", "few_genes", "many_genes", "mitochondrial")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanResult:
    """What the first pass over a dataset gives.

    Attributes
    ----------
    keep
        Cells that pass quality control, shape (C,), bool.
    depth
        Total counts of the kept cells over all genes that are not left out by name, positive, shape (n,), float64.
    genes
        Columns of the kept genes, ascending, shape (M,), intp.
    stats
        Sums over the n cells of the M genes.
    step1, step1_depth
        Seeded subsample of kept cells, in input order, shape (S, M), and their depths, shape (S,), float64.
    median_nonzero
        Median of the nonzero counts of the kept genes in the kept cells.
    cells_dropped
        Cells by the first reason that applied.
    genes_dropped
        Genes left out by name or detected in too few cells.
    """

    keep: NDArray[np.bool_]
    depth: NDArray[np.float64]
    genes: NDArray[np.intp]
    stats: GeneStats
    step1: csr_matrix
    step1_depth: NDArray[np.float64]
    median_nonzero: float
    cells_dropped: dict[str, int]
    genes_dropped: dict[str, int]

    @property
    def n_cells(self) -> int:
        """Number of kept cells n."""
        return len(self.depth)


def scan(source: CountSource, config: GraphConfig) -> ScanResult:
    """Read all counts once.

    Parameters
    ----------
    source
        Raw counts, C cells x G genes.
    config
        Quality control, size of the subsample and size of blocks.

    Returns
    -------
    ScanResult
        At least 50 cells and 2 genes.

    Raises
    ------
    InputError
        When values are not counts, or too few cells (E251) or genes (E253) are left.
    """
    n_genes = source.n_genes
    mitochondrial = np.char.startswith(np.char.upper(source.gene), MITOCHONDRIAL)
    if config.qc.max_mito is not None and not mitochondrial.any():
        msg = "qc.max_mito is set, but no gene name starts with MT-"
        raise InputError(msg, code="E254", where=str(source.path), fix="name genes by symbols, or leave max_mito out")
    counted = ~mitochondrial if config.drop_mitochondrial else np.ones(n_genes, dtype=np.bool_)
    sums = np.zeros(n_genes), np.zeros(n_genes), np.zeros(n_genes), np.zeros(n_genes, dtype=np.int64)
    histogram = _NonzeroHistogram(counted, config.min_cells)
    sample = _Subsample(source.n_cells, config.sct_cells, config.seed)
    reasons = np.zeros(source.n_cells, dtype=np.int8)
    depths = []
    for start, block in source.blocks(config.block_rows):
        rows = slice(start, start + block.shape[0])
        reasons[rows], depth = _judge_cells(block, mitochondrial, counted, config.qc)
        keep = reasons[rows] == 0
        accumulate_gene_sums(block, keep, *sums)
        kept = block[keep]
        histogram.update(kept, sums[3])
        sample.update(start + np.flatnonzero(keep), kept, depth[keep])
        depths.append(depth[keep])
    total, squares, log1p, detected = sums
    dropped = {name: int((reasons == code).sum()) for code, name in enumerate(REASONS, start=1)}
    n_cells = int((reasons == 0).sum())
    genes = np.flatnonzero(counted & (detected >= config.min_cells))
    _refuse_too_little(source, n_cells, len(genes), dropped, config)
    step1, step1_depth = sample.finish()
    return ScanResult(
        keep=reasons == 0,
        depth=np.concatenate(depths),
        genes=genes,
        stats=GeneStats(
            n_cells=n_cells,
            total=total[genes],
            total_squares=squares[genes],
            total_log1p=log1p[genes],
            n_detected=detected[genes],
        ),
        step1=step1[:, genes],
        step1_depth=step1_depth,
        median_nonzero=median_of_histogram(histogram.finish()),
        cells_dropped={name: count for name, count in dropped.items() if count},
        genes_dropped={
            "mitochondrial": int((~counted).sum()),
            "detected_in_few_cells": int((counted & (detected < config.min_cells)).sum()),
        },
    )


def kept_blocks(
    source: CountSource, result: ScanResult, genes: NDArray[np.intp], rows: int
) -> Iterator[tuple[int, csr_matrix, NDArray[np.float64]]]:
    """Read the kept cells of some genes again.

    Parameters
    ----------
    source
        As scanned.
    result
        Of the scan.
    genes
        Columns of the source, ascending, shape (N,).
    rows
        Cells of the source per block.

    Yields
    ------
    tuple
        Position of the block's first cell among the kept ones, counts of shape (b, N) with sorted indices, and the
        depths of these cells, shape (b,), float64.
    """
    position = 0
    for start, block in source.blocks(rows):
        kept = block[result.keep[start : start + block.shape[0]]][:, genes]
        stop = position + kept.shape[0]
        if stop > position:
            kept.sort_indices()
            yield position, kept, result.depth[position:stop]
        position = stop


def _judge_cells(
    block: csr_matrix, mitochondrial: NDArray[np.bool_], counted: NDArray[np.bool_], qc: QCConfig
) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Give the first reason against each cell (0: none), and its depth."""
    sums = block @ np.stack([np.ones(len(counted)), mitochondrial, counted], axis=1).astype(np.float64)
    total, mito, depth = sums.T
    detected = np.diff(block.indptr)
    share = mito / np.maximum(total, 1.0)
    no = np.zeros(len(total), dtype=np.bool_)
    against = [
        depth == 0.0,
        total < qc.min_counts,
        detected < qc.min_genes,
        detected > qc.max_genes if qc.max_genes is not None else no,
        share > qc.max_mito if qc.max_mito is not None else no,
    ]
    reasons = np.zeros(len(total), dtype=np.int8)
    for code in range(len(against), 0, -1):
        reasons[against[code - 1]] = code
    return reasons, np.ascontiguousarray(depth)


def _refuse_too_little(
    source: CountSource, n_cells: int, n_genes: int, dropped: dict[str, int], config: GraphConfig
) -> None:
    where = source.path.name
    if n_cells < MIN_CELLS:
        why = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in dropped.items() if count) or "none"
        msg = f"{n_cells} of {source.n_cells} cells pass quality control (dropped: {why}), expected {MIN_CELLS}"
        raise InputError(msg, code="E251", where=where, fix="relax graph.qc or leave this dataset out")
    if n_genes < MIN_GENES:
        msg = f"{n_genes} genes are detected in at least {config.min_cells} cells, expected {MIN_GENES}"
        raise InputError(msg, code="E253", where=where, fix="lower graph.min_cells or leave this dataset out")


class _NonzeroHistogram:
    """Histogram of the nonzero counts of the genes that end up detected in enough cells.

    Genes below the threshold are known at the end only, so their few values are kept aside and subtracted.
    """

    def __init__(self, counted: NDArray[np.bool_], min_cells: int) -> None:
        self._counted = counted
        self._min_cells = min_cells
        self._counts = np.zeros(1, dtype=np.int64)
        self._rare_genes = np.zeros(0, dtype=np.int32)
        self._rare_values = np.zeros(0, dtype=np.int32)

    def update(self, kept: csr_matrix, detected: NDArray[np.int64]) -> None:
        """Add kept cells; `detected` counts the cells up to and with this block."""
        used = self._counted[kept.indices]
        genes, values = kept.indices[used], kept.data[used]
        block = np.bincount(values, minlength=len(self._counts))
        block[: len(self._counts)] += self._counts
        self._counts = block
        rare = detected[genes] < self._min_cells
        genes = np.concatenate([self._rare_genes, genes[rare]])
        values = np.concatenate([self._rare_values, values[rare]])
        still = detected[genes] < self._min_cells
        self._rare_genes, self._rare_values = genes[still], values[still]

    def finish(self) -> NDArray[np.int64]:
        """Give the number of times each count occurs, from 0 on."""
        result: NDArray[np.int64] = self._counts - np.bincount(self._rare_values, minlength=len(self._counts))
        return result


class _Subsample:
    """Uniform subsample without replacement of the kept cells, in one pass: those with the smallest random keys.

    A cell's key depends on the seed and its position in the source alone, so blocks do not matter.
    """

    def __init__(self, n_cells: int, size: int, seed: int) -> None:
        self._keys = stream(seed, "sctransform_cells").random(n_cells)
        self._size = size
        self._cells: list[NDArray[np.intp]] = []
        self._rows: list[csr_matrix] = []
        self._depths: list[NDArray[np.float64]] = []

    def update(self, cells: NDArray[np.intp], rows: csr_matrix, depth: NDArray[np.float64]) -> None:
        """Offer cells by their position in the source."""
        self._cells.append(cells)
        self._rows.append(rows)
        self._depths.append(depth)
        if sum(map(len, self._cells)) > 2 * self._size:
            self._prune()

    def _prune(self) -> None:
        cells, depth = np.concatenate(self._cells), np.concatenate(self._depths)
        rows = vstack(self._rows, format="csr")
        if len(cells) > self._size:
            best = np.sort(np.argsort(self._keys[cells], kind="stable")[: self._size])
            cells, rows, depth = cells[best], rows[best], depth[best]
        self._cells, self._rows, self._depths = [cells], [rows], [depth]

    def finish(self) -> tuple[csr_matrix, NDArray[np.float64]]:
        """Give the chosen cells in the order of the source, and their depths."""
        self._prune()
        return self._rows[0], self._depths[0]
