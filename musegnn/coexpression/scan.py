"""The first pass over the counts: quality control, depths and how often each count of a gene occurs.

Values are validated by the source as blocks are read, so validation costs no pass of its own.

Legend: C cells of the source, c cells of a range, n cells kept, G genes of the source, M genes kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from musegnn.coexpression.counts import CountTable
from musegnn.coexpression.tasks import load
from musegnn.data_store.count_source import MIN_CELLS
from musegnn.data_store.genes import mark_ribosomal
from musegnn.data_store.validate import count_warnings
from musegnn.errors import InputError
from musegnn.kernels.subset import subset

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from musegnn.coexpression.counts import GeneStats
    from musegnn.config import GraphConfig, QCConfig
    from musegnn.data_store.readers import CountSource

BLOCK_ROWS = 16384
MIN_GENES = 2
REASONS = ("no_counts", "few_counts", "few_genes", "many_genes", "mitochondrial")


@dataclass(frozen=True, slots=True)
class CellRange:
    """Cells ``start`` to ``stop`` of a source, the unit of work; `index` is its position among the ranges."""

    index: int
    start: int
    stop: int

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return self.stop - self.start


def cut_ranges(n_cells: int, rows: int) -> list[CellRange]:
    """Cut cells into ranges of `rows`; the last may be smaller."""
    return [CellRange(k, start, min(start + rows, n_cells)) for k, start in enumerate(range(0, n_cells, rows))]


class Scan(NamedTuple):
    """Result of :func:`scan_range`.

    For each cell, `reasons` is the position in ``REASONS``, from 1 on, of the first reason against it, or 0; `depth` is
    of the kept cells; `merged` duplicate entries of the source were summed; the others make up a
    :class:`~musegnn.coexpression.counts.CountTable` of all G genes over the kept cells.
    """

    reasons: NDArray[np.int8]
    depth: NDArray[np.float64]
    merged: int
    small: NDArray[np.int64]
    keys: NDArray[np.int64]
    times: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanResult:
    """Result of the first pass over a dataset.

    Attributes
    ----------
    keep
        Cells that pass quality control, shape (C,), bool.
    depth
        Total counts of the kept cells over all genes that are not left out by name, positive, shape (n,), float64.
    genes
        Columns of the kept genes, ascending, shape (M,), intp.
    table, stats, median_nonzero
        Occurrences, sums and median of the counts of the kept genes in the kept cells.
    merged
        Duplicate entries of the source that were summed.
    cells_dropped, genes_dropped
        Cells by the first reason that applied, and genes left out by name or detected in too few cells.
    shares
        Shares of all counts of the kept cells in ``mitochondrial`` genes and in those of ``ribosomal`` proteins.
    warnings
        Lines ``W###: ...`` of counts that are hardly those of filtered cells.
    """

    keep: NDArray[np.bool_]
    depth: NDArray[np.float64]
    genes: NDArray[np.intp]
    table: CountTable
    stats: GeneStats
    median_nonzero: float
    merged: int
    cells_dropped: dict[str, int]
    genes_dropped: dict[str, int]
    shares: dict[str, float]
    warnings: list[str]

    @property
    def n_cells(self) -> int:
        """Number of kept cells n."""
        return len(self.depth)


@dataclass(frozen=True, slots=True)
class ScannedCells:
    """The kept cells of a range of a source, by the file that :func:`scan_range` left."""

    source: CountSource
    cells: CellRange
    scanned: Path

    def keep(self) -> NDArray[np.bool_]:
        """Mark the kept cells, shape (c,)."""
        keep: NDArray[np.bool_] = load(self.scanned, Scan).reasons == 0
        return keep

    def blocks(self, genes: NDArray[np.intp]) -> Iterator[tuple[slice, csr_matrix, NDArray[np.float64]]]:
        """Read the kept cells again, for the genes in these columns of the source, shape (N,), in their order.

        Yields the place of the block's cells among the kept cells of the range, counts of shape (b, N), and depths,
        shape (b,), float64. The entries of a row stand in the order of the source.
        """
        part = load(self.scanned, Scan)
        place = np.full(self.source.n_genes, -1, dtype=np.int32)
        place[genes] = np.arange(len(genes), dtype=np.int32)
        position = 0
        for start, block in read_range(self.source, self.cells, validate=False):
            first = start - self.cells.start
            keep = part.reasons[first : first + block.shape[0]] == 0
            kept = subset(block, keep, place, len(genes))
            cells = slice(position, position + kept.shape[0])
            if kept.shape[0]:
                yield cells, kept, part.depth[cells]
            position = cells.stop


def read_range(source: CountSource, cells: CellRange, *, validate: bool) -> Iterator[tuple[int, csr_matrix]]:
    """Read the blocks of a range: one, unless it holds more than 2^22 counts."""
    return source.blocks(cells.n_cells, start=cells.start, stop=cells.stop, validate=validate)


def scan_range(source: CountSource, config: GraphConfig, cells: CellRange) -> Scan:
    """Judge and count the cells of a range.

    Raises
    ------
    InputError
        When values are not counts (after the last block of the range).
    """
    mitochondrial, counted = _by_name(source, config)
    table = CountTable(source.n_genes)
    reasons, depths = [np.zeros(0, np.int8)], [np.zeros(0)]
    for _, block in read_range(source, cells, validate=True):
        why, depth = _judge_cells(block, mitochondrial, counted, config.qc)
        keep = why == 0
        table.update(block, keep)
        reasons.append(why)
        depths.append(depth[keep])
    merged = source.n_merged(cells.start, cells.stop)
    return Scan(np.concatenate(reasons), np.concatenate(depths), merged, *table.arrays())


def merge_scans(source: CountSource, config: GraphConfig, paths: Sequence[Path]) -> ScanResult:
    """Merge the files of :func:`scan_range`, in order, to at least 50 cells and 2 genes.

    Raises
    ------
    InputError
        When too few cells (E251) or genes (E253) are left.
    """
    mitochondrial, counted = _by_name(source, config)
    table = CountTable(source.n_genes)
    reasons, depths, merged = [], [], 0
    for path in paths:
        part = load(path, Scan)
        merged += part.merged
        reasons.append(part.reasons)
        depths.append(part.depth)
        table.merge(CountTable.from_arrays(part.small, part.keys, part.times))
    against, depth = np.concatenate(reasons), np.concatenate(depths)
    detected = table.n_detected
    dropped = {name: int((against == code).sum()) for code, name in enumerate(REASONS, start=1)}
    genes = np.flatnonzero(counted & (detected >= config.min_cells))
    _refuse_too_little(source, len(depth), len(genes), dropped, config)
    total = table.stats(len(depth)).total
    kinds = {"mitochondrial": mitochondrial, "ribosomal": mark_ribosomal(source.gene.tolist(), source.gene_id.tolist())}
    shares = {kind: float(total[marked].sum() / max(total.sum(), 1.0)) for kind, marked in kinds.items()}
    warnings = count_warnings(
        depth,
        n_cells=source.n_cells,
        n_genes=source.n_genes,
        empty_cells=dropped["no_counts"],
        empty_genes=int((detected == 0).sum()),
        largest=table.largest,
    )
    table = table.take(genes)
    return ScanResult(
        keep=against == 0,
        depth=depth,
        genes=genes,
        table=table,
        stats=table.stats(len(depth)),
        median_nonzero=table.median_nonzero(),
        merged=merged,
        cells_dropped={name: count for name, count in dropped.items() if count},
        genes_dropped={
            "mitochondrial": int((~counted).sum()),
            "detected_in_few_cells": int((counted & (detected < config.min_cells)).sum()),
        },
        shares=shares,
        warnings=warnings,
    )


def check_genes(source: CountSource, config: GraphConfig) -> None:
    """Refuse with E254 a bound on mitochondrial counts where no gene is called mitochondrial."""
    mitochondrial, _ = _by_name(source, config)
    if config.qc.max_mito is not None and not mitochondrial.any():
        msg = "qc.max_mito is set, but no gene is known to be mitochondrial"
        raise InputError(
            msg, code="E254", where=str(source.path), fix="list them in graph.mitochondrial, or leave max_mito out"
        )


def mitochondrial_genes(source: CountSource, config: GraphConfig) -> NDArray[np.bool_]:
    """Mark the mitochondrial genes, shape (G,): those that the source knows, and those that the settings list."""
    if not isinstance(config.mitochondrial, tuple):
        return source.mitochondrial
    listed = np.array(config.mitochondrial, dtype=np.str_)
    marked: NDArray[np.bool_] = source.mitochondrial | np.isin(source.gene, listed) | np.isin(source.gene_id, listed)
    return marked


def _by_name(source: CountSource, config: GraphConfig) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Mark the mitochondrial genes and those that count towards the depth."""
    mitochondrial = mitochondrial_genes(source, config)
    return mitochondrial, ~mitochondrial if config.drop_mitochondrial else np.ones(source.n_genes, dtype=np.bool_)


def _judge_cells(
    block: csr_matrix, mitochondrial: NDArray[np.bool_], counted: NDArray[np.bool_], qc: QCConfig
) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Return the first reason against each cell (0: none), and its depth."""
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
    where = Path(source.path).name
    if n_cells < MIN_CELLS:
        why = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in dropped.items() if count) or "none"
        msg = f"{n_cells} of {source.n_cells} cells pass quality control (dropped: {why}), expected {MIN_CELLS}"
        raise InputError(msg, code="E251", where=where, fix="relax graph.qc or leave this dataset out")
    if n_genes < MIN_GENES:
        msg = f"{n_genes} genes are detected in at least {config.min_cells} cells, expected {MIN_GENES}"
        raise InputError(msg, code="E253", where=where, fix="lower graph.min_cells or leave this dataset out")
