"""What building the graphs of an atlas will take, before it runs: passes, memory, disk and processor time.

Bytes are those of the largest arrays. The rates of processor time are of one core of an AMD EPYC with AVX-512; reading
is timed on a sample. ``python -m benchmarks estimate`` compares with builds.

Legend: G genes of the source, N genes selected.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import ndtr

from musegnn.cluster.build import DRIVERS
from musegnn.cluster.schedulers import check_scheduler, expected_workers
from musegnn.coexpression import memory as limits
from musegnn.coexpression.build import stages_of
from musegnn.coexpression.pairs import cut_stripes, sums_bytes
from musegnn.coexpression.profile import OVERSAMPLING
from musegnn.coexpression.scan import BLOCK_ROWS
from musegnn.data_store.strata import stratum_labels
from musegnn.datasets import expand_strata, open_counts
from musegnn.units import BUILD_PROCESS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from musegnn.config import AtlasConfig, DatasetConfig, GraphConfig
    from musegnn.data_store.readers import CountSource

SAMPLE_CELLS, WINDOWS = 2048, 4
CO_EXPRESSED = 0.05  # share of pairs that are stored beside those of chance
FIXED_SECONDS, PAIR_SECONDS, FLOP_SECONDS, EIGEN_SECONDS = 2.0, 1.7e-9, 2.2e-11, 1.5e-10  # pair of counts; N^3


class SourceSample(NamedTuple):
    """Cells that have each gene, share (G,); variance over mean of its counts (G,); genes missed; CPU s per cell."""

    detected: NDArray[np.float64]
    dispersion: NDArray[np.float64]
    unseen: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildEstimate:
    """What building one dataset takes: bytes at the peak, and of what is merged; disk, while it runs and at its end."""

    name: str
    cells: int
    genes: int
    selected: int
    passes: int
    merged: int
    memory: int
    work_bytes: int
    store_bytes: int
    cpu_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AtlasEstimate:
    """What a build takes: at the peak, `per_worker` bytes in each other process; CPU seconds of all of them."""

    datasets: list[BuildEstimate]
    memory: int
    per_worker: int
    work_bytes: int
    store_bytes: int
    cpu_seconds: float
    workers: int


def estimate_graphs(atlas: AtlasConfig, *, scheduler: str = "threads", memory: int | None = None) -> AtlasEstimate:
    """Predict what :func:`~musegnn.cluster.build.build_graphs` takes with these arguments and an empty store.

    Reads the metadata of every file and up to 2048 of its cells. Which pairs are stored is not known before: those of
    chance and 5 % of all are assumed. For a remote cluster, as many workers as this machine has cores are assumed.
    Errors are those of the build.
    """
    check_scheduler(scheduler)
    atlas = expand_strata(atlas)
    workers = expected_workers(scheduler)
    sources = [open_counts(dataset) for dataset in atlas.datasets]
    budget, most = limits.memory_budget(memory), max(limits.most_genes(atlas.graph, s.n_genes) for s in sources)
    stripe_bytes = limits.task_memory(most, budget, workers[1])
    found = []
    for source, dataset in zip(sources, atlas.datasets, strict=True):
        found.append(_estimate_build(source, dataset, atlas.graph, workers, stripe_bytes))
        limits.check_profile_memory(dataset.name, atlas.graph, found[-1].selected, budget)
    merged = sorted((d.merged for d in found), reverse=True)[1 : min(workers[0], DRIVERS)]
    peak = max(d.memory for d in found) + sum(merged)  # the tasks of datasets that are built at a time share workers
    each = 0 if scheduler in {"threads", "synchronous"} else peak
    total = {name: sum(getattr(d, name) for d in found) for name in ("work_bytes", "store_bytes", "cpu_seconds")}
    return AtlasEstimate(datasets=found, memory=peak, per_worker=each, workers=workers[0], **total)


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


def _estimate_build(
    source: CountSource, dataset: DatasetConfig, config: GraphConfig, workers: tuple[int, int], stripe_bytes: int
) -> BuildEstimate:
    """Predict the build of one dataset by so many workers, and by so many of them in each process."""
    cells, (parallel, per_process) = dataset.stratum, workers
    n = source.n_cells if cells is None else len(stratum_labels(source, dataset.by or "")[cells])
    sample = sample_source(source)
    share = np.sort(sample.detected[_likely_genes(source, config, sample, n)])
    n_genes, per_cell = len(share), float(share.sum())
    pairs = 0.5 * n_genes**2 * min(1.0, CO_EXPRESSED + 2.0 * float(ndtr(-config.z_store)))
    stripes = cut_stripes((share * n + 1.0) * np.arange(n_genes, 0, -1.0), parallel, stripe_bytes)
    rank, gram, table = min(config.profile_rank or n_genes, n_genes), 8.0 * n_genes**2, 512.0 * source.n_genes
    if config.profile_rank is None:  # Gram matrices, as they are summed and as they are compressed
        profile, compressed = 2.0 * gram, limits.EIGEN_MATRICES * gram
    else:
        profile, compressed = (copies * 8.0 * n_genes * (rank + OVERSAMPLING) for copies in (3.0, 8.0))
    rows = min(BLOCK_ROWS, n)
    read = limits.BLOCK_BYTES * min(rows * float(sample.detected.sum()), limits.BLOCK_ENTRIES)
    counts = 24.0 * rows * per_cell
    sums = sorted((sums_bytes(n_genes, stripe) for stripe in stripes), reverse=True)[:per_process]
    # in their turn: reading, or residuals of 512 cells; sums and pairs of stripes, which are tested by 64 rows
    task = per_process * max(read + max(table, counts), profile + counts + 24_576.0 * n_genes)
    task = max(task, sum(sums) + len(sums) * (counts + 32.0 * pairs / len(stripes) + 5120.0 * n_genes))
    merged = table + 24.0 * n + max(table, 48.0 * pairs, compressed)
    passes = sum(name in {"scan", "select", "variance", "extract"} for name in stages_of(config, dataset.modality))
    seconds = PAIR_SECONDS * n * (per_cell**2 + per_cell) / 2
    if config.profile_rank is None:  # residuals are multiplied cell by cell or, of sparse counts, by distinct depths
        seconds += min(2 * FLOP_SECONDS * n * n_genes**2, 2 * seconds) + EIGEN_SECONDS * n_genes**3
    else:
        seconds += 8 * FLOP_SECONDS * n * n_genes * rank
    return BuildEstimate(
        name=dataset.name,
        cells=n,
        genes=source.n_genes,
        selected=n_genes,
        passes=passes,
        merged=int(merged),
        memory=int(BUILD_PROCESS + max(task + table + 24.0 * n, merged)),
        work_bytes=int(4.0 * n * per_cell + 16.0 * pairs + table * -(-n // BLOCK_ROWS) + 4.0 * gram),
        store_bytes=int(4.0 * n_genes * min(rank, n) + 17.0 * pairs),
        cpu_seconds=FIXED_SECONDS + passes * sample.seconds * n + seconds,
    )


def _likely_genes(source: CountSource, config: GraphConfig, sample: SourceSample, n_cells: int) -> NDArray[np.intp]:
    """Return genes such as the build will select: the over-dispersed ones stand for the variable ones."""
    present = np.flatnonzero(sample.detected * n_cells >= config.min_cells)
    if config.selection == "list" and isinstance(config.genes, tuple):
        wanted = np.array(config.genes, dtype=np.str_)
        return present[(np.isin(source.gene, wanted) | np.isin(source.gene_id, wanted))[present]]
    if config.selection == "all":
        return np.union1d(present, np.flatnonzero(sample.detected == 0)[: sample.unseen])
    return present[np.argsort(-sample.dispersion[present], kind="stable")][: limits.most_genes(config, source.n_genes)]
