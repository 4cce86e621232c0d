"""What a build will take, before it runs: passes, memory, disk and processor time.

Sizes come from the head of the file and from a sample of its cells, memory from :mod:`musegnn.coexpression.memory`. The
rates of processor time are of one core of an AMD EPYC with AVX-512; reading is timed on the sample itself. ``python -m
benchmarks estimate`` holds all of it against builds.

Legend: C cells, G genes of the source, c cells of the sample, N genes selected.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.special import ndtr

from musegnn.coexpression.build import STRIPE_BYTES, stages_of
from musegnn.coexpression.memory import PACKED_BYTES, BuildShape, StageMemory, most_genes, stage_memory
from musegnn.coexpression.pairs import cut_stripes
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
COUNT_SECONDS = 30e-9  # per selected count: moments, packing, unpacking
FINISH_SECONDS = 40e-9  # per pair of genes
FLOP_SECONDS = 2.2e-11
EIGEN_SECONDS = 1.5e-10  # per N^3


class SourceSample(NamedTuple):
    """What some cells tell of a source.

    Attributes
    ----------
    detected
        Share of the cells in which each gene is detected, shape (G,), float64.
    dispersion
        Variance over mean of each gene's counts, 0 where it has none, shape (G,), float64.
    unseen
        Genes that the sample lacks and the source is expected to have.
    seconds
        CPU seconds to read one cell.
    """

    detected: NDArray[np.float64]
    dispersion: NDArray[np.float64]
    unseen: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildEstimate:
    """What building one dataset takes.

    Attributes
    ----------
    name
        The dataset.
    cells, genes, selected
        Cells and genes of the source, and genes of the graph.
    passes
        Passes over the source.
    task, merged
        Bytes of the tasks that run in one process at a time, at the stage that needs most, and of what the process
        that builds merges between stages.
    memory
        Peak of the process that builds, with its tasks, in bytes.
    work_bytes
        Files of unfinished work on the store's disk, in bytes; removed at the end.
    store_bytes
        What stays in the store, in bytes.
    cpu_seconds
        Processor time.
    stripes
        Tasks over pairs.
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

    def to_json(self) -> dict[str, Any]:  # JSON
        """Return plain values."""
        return asdict(self)


def sample_source(source: CountSource) -> SourceSample:
    """Read up to 2048 cells in four places.

    Parameters
    ----------
    source
        Raw counts.

    Raises
    ------
    InputError
        When these cells cannot be read as counts.
    """
    n, size = source.n_cells, SAMPLE_CELLS // WINDOWS
    whole = getattr(source, "by_column", False)  # every range of such a file costs a pass over it
    windows = 1 if whole or n <= SAMPLE_CELLS else WINDOWS
    size = min(n, size if windows > 1 else SAMPLE_CELLS)
    starts = np.linspace(0, n - size, windows).astype(np.int64)
    detected, total, squares = np.zeros((3, source.n_genes))
    seconds: list[float] = []
    for start in starts.tolist():
        begin = time.thread_time()
        for _, block in source.blocks(size, start=start, stop=start + size):
            values = block.data.astype(np.float64)
            detected += np.bincount(block.indices, minlength=source.n_genes)
            total += np.bincount(block.indices, values, minlength=source.n_genes)
            squares += np.bincount(block.indices, values * values, minlength=source.n_genes)
        seconds.append(time.thread_time() - begin)
    cells = windows * size
    mean = total / cells
    variance = squares / cells - mean * mean
    return SourceSample(
        detected=detected / cells,
        dispersion=np.divide(variance, mean, out=np.zeros_like(mean), where=mean > 0),
        unseen=min(_unseen(detected), int((detected == 0).sum())) if cells < n else 0,
        seconds=min(seconds) / size * (size / n if whole else 1.0),  # the first window also compiles and loads
    )


def _unseen(detected: NDArray[np.float64]) -> int:
    """Estimate how many genes the sample missed (Chao 1984, Scand. J. Stat. 11:265, bias-corrected)."""
    once, twice = int((detected == 1).sum()), int((detected == 2).sum())
    return once * (once - 1) // (2 * (twice + 1))


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
    """Predict what :func:`~musegnn.coexpression.build.build_dataset` takes.

    Which pairs are stored is not known before: those of chance and 5 % of all are assumed, of like size for every
    dataset. Dense graphs need more disk, and memory where there are many genes.

    Parameters
    ----------
    source
        Raw counts.
    dataset, config
        As for the build.
    cells
        Cells of the stratum; ``None``: those of the source.
    parallel, stripe_bytes
        As for the build.
    per_process
        Tasks that run in one process at a time.

    Returns
    -------
    BuildEstimate
        For this dataset alone.
    """
    sample = sample_source(source)
    n = source.n_cells if cells is None else cells
    chosen = _likely_genes(source, config, sample, n)
    share = sample.detected[chosen]
    pairs = 0.5 * len(chosen) ** 2 * min(1.0, CO_EXPRESSED + 2.0 * float(ndtr(-config.z_store)))
    shape = BuildShape(
        cells=n,
        genes=source.n_genes,
        entries=float(sample.detected.sum()) * n,
        selected=len(chosen),
        selected_entries=float(share.sum()) * n,
        pairs=pairs,
    )
    weight = (np.sort(share) * n + 1.0) * np.arange(len(chosen), 0, -1, dtype=np.float64)
    stripes = cut_stripes(weight, parallel, stripe_bytes)
    stages = stage_memory(shape, config, stripes, per_process)
    task = max(stage.task * min(per_process, stage.tasks) for stage in stages.values())
    kept = stages["kept"].merged
    columns = {"gram": min(len(chosen), n), "randomized": min(config.profile_rank, len(chosen)), "full": n}
    passes = sum(1 for name in stages_of(config, dataset.modality) if name in {"scan", "select", "variance", "extract"})
    return BuildEstimate(
        name=dataset.name,
        cells=n,
        genes=source.n_genes,
        selected=len(chosen),
        passes=passes,
        task=int(task),
        merged=int(kept + max(stage.merged for stage in stages.values())),
        memory=int(BUILD_PROCESS + kept + max(stage.peak(per_process) for stage in stages.values())),
        work_bytes=int(_work_bytes(shape, stages)),
        store_bytes=int(4.0 * len(chosen) * columns[config.profile] + 24.0 * COMPRESSED * pairs),
        cpu_seconds=passes * sample.seconds * n + _compute_seconds(shape, config, share),
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
        missing = np.flatnonzero(sample.detected == 0)[: sample.unseen]
        return np.union1d(present, missing)
    order = present[np.argsort(-sample.dispersion[present], kind="stable")]
    return np.sort(order[: most_genes(config, source.n_genes)])


def _work_bytes(shape: BuildShape, stages: dict[str, StageMemory]) -> float:
    """Add up the files of tasks: packed counts, stored pairs, tables and Gram matrices."""
    packed = shape.selected_entries * PACKED_BYTES
    profiles = stages["profile"].tasks * 8.0 * shape.selected**2
    return packed + 16.0 * shape.pairs + stages["scan"].merged * stages["scan"].tasks / 2 + profiles


def _compute_seconds(shape: BuildShape, config: GraphConfig, share: NDArray[np.float64]) -> float:
    n = float(shape.selected)
    per_cell = float(share.sum())
    pairs = shape.cells * (per_cell**2 + per_cell) / 2
    seconds = PAIR_SECONDS * pairs + COUNT_SECONDS * shape.selected_entries + FINISH_SECONDS * n**2 / 2
    if config.profile == "randomized":
        columns = min(n, config.profile_rank)
        return FIXED_SECONDS + seconds + 2 * FLOP_SECONDS * 4 * shape.cells * n * columns
    # Residuals are multiplied cell by cell or, of sparse counts, by the distinct depths, whichever costs less.
    dense, sparse = 2 * FLOP_SECONDS * shape.cells * n**2, PAIR_SECONDS * 2 * pairs
    return FIXED_SECONDS + seconds + min(dense, sparse) + EIGEN_SECONDS * n**3


def total_memory(estimates: Sequence[BuildEstimate], at_a_time: int) -> int:
    """Return the peak in bytes when so many datasets are built at a time: their tasks share the workers."""
    merged = sorted((estimate.merged for estimate in estimates), reverse=True)[:at_a_time]
    largest = max((estimate.memory for estimate in estimates), default=BUILD_PROCESS)
    return max(largest, BUILD_PROCESS + max((estimate.task for estimate in estimates), default=0) + sum(merged[1:]))
