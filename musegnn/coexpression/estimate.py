"""What a build will take, before it runs: passes, memory, disk and processor time.

The rates of processor time are of one core of an AMD EPYC with AVX-512; reading is timed on a sample. ``python -m
benchmarks estimate`` compares with builds.

Legend: G genes of the source, N genes selected.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import ndtr

from musegnn.coexpression.build import STRIPE_BYTES, stages_of
from musegnn.coexpression.memory import BLOCK_BYTES, BLOCK_ENTRIES, EIGEN_MATRICES, most_genes
from musegnn.coexpression.pairs import cut_stripes
from musegnn.coexpression.profile import GROUP_RANGES, OVERSAMPLING
from musegnn.coexpression.scan import BLOCK_ROWS
from musegnn.kernels.gram import WeightedGram
from musegnn.units import BUILD_PROCESS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from musegnn.config import DatasetConfig, GraphConfig
    from musegnn.data_store.readers import CountSource

SAMPLE_CELLS = 2048
WINDOWS = 4
CO_EXPRESSED = 0.05  # share of pairs that are stored beside those of chance
COMPRESSED = 0.7  # of pairs, on disk
FIXED_SECONDS = 2.0
PAIR_SECONDS = 1.7e-9  # per pair of counts of one cell, both weightings
FLOP_SECONDS = 2.2e-11
EIGEN_SECONDS = 1.5e-10  # per N^3


class SourceSample(NamedTuple):
    """Share of cells that have each gene (G,), variance over mean of its counts (G,), and CPU seconds per cell.

    `unseen` genes are missing in the sample and expected in the source.
    """

    detected: NDArray[np.float64]
    dispersion: NDArray[np.float64]
    unseen: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildEstimate:
    """What building one dataset takes: sizes in bytes, and processor time.

    `task` is that of the tasks that run in one process at a time, at the stage that needs most; `merged` that of what
    the process that builds merges between stages; `memory` its peak, with its tasks. Of the store's disk, `work_bytes`
    are free again at the end, and `store_bytes` stay. `passes` are over the source, `stripes` are tasks over pairs.
    """

    name: str
    cells: int
    genes: int
    selected: int
    passes: int
    task: int
    merged: int
    memory: int
    work_bytes: int
    store_bytes: int
    cpu_seconds: float
    stripes: int


def sample_source(source: CountSource) -> SourceSample:
    """Read up to 2048 cells in four places."""
    n = source.n_cells
    access = getattr(source, "access", "rows")
    whole = access == "columns"  # every range of such a file costs a pass over it
    windows = 1 if access != "rows" or n <= SAMPLE_CELLS else WINDOWS
    size = min(n, SAMPLE_CELLS // windows)
    detected, total, squares = np.zeros((3, source.n_genes))
    seconds: list[float] = []
    for start in np.linspace(0, n - size, windows).astype(np.int64).tolist():
        begin = time.thread_time()
        for _, block in source.blocks(size, start=start, stop=start + size):
            values = block.data.astype(np.float64)
            detected += np.bincount(block.indices, minlength=source.n_genes)
            total += np.bincount(block.indices, values, minlength=source.n_genes)
            squares += np.bincount(block.indices, values * values, minlength=source.n_genes)
        seconds.append(time.thread_time() - begin)
    cells = windows * size
    mean = total / cells
    # The genes that a sample missed, from those seen once and twice (Chao 1984, Scand. J. Stat. 11:265).
    once, twice, never = (int((detected == times).sum()) for times in (1, 2, 0))
    return SourceSample(
        detected=detected / cells,
        dispersion=np.divide(squares / cells - mean * mean, mean, out=np.zeros_like(mean), where=mean > 0),
        unseen=min(once * (once - 1) // (2 * (twice + 1)), never) if cells < n else 0,
        seconds=min(seconds) / size * (size / n if whole else 1.0),  # the first window also compiles and loads
    )


def estimate_build(
    source: CountSource,
    dataset: DatasetConfig,
    config: GraphConfig,
    *,
    cells: int | None = None,
    parallel: int = 1,
    per_process: int = 1,
    stripe_bytes: int = STRIPE_BYTES,
) -> BuildEstimate:
    """Predict what :func:`~musegnn.coexpression.build.build_dataset` takes for one dataset with these arguments.

    Memory is that of the largest arrays. Which pairs are stored is not known before: those of chance and 5 % of all are
    assumed. Dense graphs need more disk, and memory where there are many genes. A stratum has `cells`; `per_process`
    tasks run in one process at a time.
    """
    sample = sample_source(source)
    n = source.n_cells if cells is None else cells
    chosen = _likely_genes(source, config, sample, n)
    share, n_genes = sample.detected[chosen], len(chosen)
    pairs = 0.5 * n_genes**2 * min(1.0, CO_EXPRESSED + 2.0 * float(ndtr(-config.z_store)))
    weight = (np.sort(share) * n + 1.0) * np.arange(n_genes, 0, -1, dtype=np.float64)
    stripes = cut_stripes(weight, parallel, stripe_bytes)
    ranges = -(-n // BLOCK_ROWS)
    groups, square, table = -(-ranges // GROUP_RANGES), 8.0 * n_genes**2, 512.0 * source.n_genes
    rank = n_genes if config.profile_rank is None else min(config.profile_rank, n_genes)
    if config.profile_rank is None:  # Gram matrices, as they are summed and as they are compressed
        profile, compressed = 2.0 * square, EIGEN_MATRICES * square
    else:
        sketch = 8.0 * n_genes * (rank + OVERSAMPLING)
        profile, compressed = 3.0 * sketch, 8.0 * sketch
    rows = min(BLOCK_ROWS, n)
    read, counts = BLOCK_BYTES * min(rows * float(sample.detected.sum()), BLOCK_ENTRIES), 24.0 * rows * share.sum()
    largest = sorted((WeightedGram.nbytes(n_genes, stripe) for stripe in stripes), reverse=True)[:per_process]
    task = max(
        min(per_process, ranges) * (read + max(table, counts)),
        # The sums and pairs of a stripe, and ten matrices of 64 x N while its pairs are tested.
        sum(largest) + len(largest) * (counts + 32.0 * pairs / len(stripes) + 10 * 64 * 8.0 * n_genes),
        # Six matrices of 512 cells x N while residuals are computed.
        min(per_process, groups) * (profile + counts + 6 * 512 * 8.0 * n_genes),
    )
    merged, kept = max(2.0 * table, 48.0 * pairs, compressed), table + 24.0 * n
    passes = sum(1 for name in stages_of(config, dataset.modality) if name in {"scan", "select", "variance", "extract"})
    return BuildEstimate(
        name=dataset.name,
        cells=n,
        genes=source.n_genes,
        selected=n_genes,
        passes=passes,
        task=int(task),
        merged=int(kept + merged),
        memory=int(BUILD_PROCESS + kept + max(task, merged)),
        work_bytes=int(4.0 * n * share.sum() + 16.0 * pairs + table * ranges + groups * square),
        store_bytes=int(4.0 * n_genes * min(rank, n) + 24.0 * COMPRESSED * pairs),
        cpu_seconds=passes * sample.seconds * n + _compute_seconds(n, float(share.sum()), n_genes, config),
        stripes=len(stripes),
    )


def _likely_genes(source: CountSource, config: GraphConfig, sample: SourceSample, n_cells: int) -> NDArray[np.intp]:
    """Return genes such as the build will select: the over-dispersed ones stand for the variable ones."""
    present = np.flatnonzero(sample.detected * n_cells >= config.min_cells)
    if config.selection == "list" and isinstance(config.genes, tuple):
        wanted = np.array(config.genes, dtype=np.str_)
        named = np.isin(source.gene, wanted) | np.isin(source.gene_id, wanted)
        return present[named[present]]
    if config.selection == "all":
        return np.union1d(present, np.flatnonzero(sample.detected == 0)[: sample.unseen])
    order = present[np.argsort(-sample.dispersion[present], kind="stable")]
    return np.sort(order[: most_genes(config, source.n_genes)])


def _compute_seconds(n_cells: int, per_cell: float, n_genes: int, config: GraphConfig) -> float:
    pairs = n_cells * (per_cell**2 + per_cell) / 2
    seconds = FIXED_SECONDS + PAIR_SECONDS * pairs
    if config.profile_rank is not None:
        return seconds + 8 * FLOP_SECONDS * n_cells * n_genes * min(n_genes, config.profile_rank)
    # Residuals are multiplied cell by cell or, of sparse counts, by the distinct depths, whichever costs less.
    dense, sparse = 2 * FLOP_SECONDS * n_cells * n_genes**2, PAIR_SECONDS * 2 * pairs
    return seconds + min(dense, sparse) + EIGEN_SECONDS * float(n_genes) ** 3


def total_memory(estimates: Sequence[BuildEstimate], at_a_time: int) -> int:
    """Return the peak in bytes when so many datasets are built at a time: their tasks share the workers."""
    merged = sorted((estimate.merged for estimate in estimates), reverse=True)[:at_a_time]
    largest = max((estimate.memory for estimate in estimates), default=BUILD_PROCESS)
    return max(largest, BUILD_PROCESS + max((estimate.task for estimate in estimates), default=0) + sum(merged[1:]))
