"""The memory that a build takes: what one process holds at each stage, and how pairs are cut to fit.

A process holds a base (interpreter, libraries, compiled code), the tasks that run in it at a time, and what is merged
between stages. The constants are bytes counted from the arrays in the code; ``python -m benchmarks estimate`` holds
their sum against measured peaks.

Legend: C cells, G genes of the source, N genes selected.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from musegnn.coexpression.cscore import ROWS
from musegnn.coexpression.profile import DENSE_CELLS, GROUP_SHARDS, OVERSAMPLING
from musegnn.errors import ConfigError
from musegnn.kernels.gram import WeightedGram
from musegnn.units import BUILD_PROCESS, megabytes

if TYPE_CHECKING:
    from musegnn.config import GraphConfig

BLOCK_ENTRIES = 1 << 22
BATCH_CELLS = 8192
READ_BYTES = 32  # per entry of a block: as stored 8, converted 8, checked and restricted to some genes 16
EXTRACT_BYTES = 24  # per selected entry of a shard: parts, joined, packed
BLOCK_BYTES = 8  # per entry of a block of packed counts
BATCH_BYTES = 20  # per entry of a batch of the Gram kernel; listed again by cell where it is scattered
PACKED_BYTES = 4
TABLE_BYTES = 512  # per gene: how often each count below 64 occurs
CELL_BYTES = 24
PAIR_BYTES = 48  # per stored pair while they are put into one symmetric table
FINISH_MATRICES = 10  # of 64 rows, while pairs are tested
DENSE_MATRICES = 6  # of one step of cells x N, while residuals are computed
EIGEN_MATRICES = 8.5  # of N x N, while the profile is compressed


class BuildShape(NamedTuple):
    """The sizes that decide what a build takes.

    Attributes
    ----------
    cells, genes, entries
        C, G, and counts above zero of the source.
    selected, selected_entries
        N, and counts above zero of the genes selected.
    pairs
        Pairs that will be stored.
    """

    cells: int
    genes: int
    entries: float
    selected: int
    selected_entries: float
    pairs: float


@dataclass(frozen=True, slots=True)
class StageMemory:
    """What a stage holds.

    Attributes
    ----------
    task
        Bytes of one task.
    tasks
        Tasks of the stage.
    merged
        Bytes that the process which builds takes to merge the results.
    """

    task: float
    tasks: int
    merged: float = 0.0

    def peak(self, at_a_time: int) -> float:
        """Return the bytes of a process that builds and runs so many tasks at a time."""
        return max(self.task * min(at_a_time, self.tasks), self.merged)


def available_memory() -> int:
    """Return the bytes that this machine can give to a process now."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123  not a file of the user's
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def memory_budget(memory: int | None) -> int:
    """Return the bytes that a process may use where `memory` may be left to us: half of what is free."""
    return available_memory() // 2 if memory is None else memory


def most_genes(config: GraphConfig, n_genes: int) -> int:
    """Bound the number of genes that the pairs of a dataset with `n_genes` genes can be of."""
    if config.selection == "list" and isinstance(config.genes, tuple):
        return min(len(config.genes), n_genes)
    return n_genes if config.selection == "all" else min(config.n_genes, n_genes)


def task_memory(n_genes: int, memory: int | None, per_process: int) -> int:
    """Return the largest size of the sums of one task over pairs.

    Parameters
    ----------
    n_genes
        Number of genes N.
    memory
        Bytes that a process may use; ``None``: half of what is free.
    per_process
        Tasks that run in it at a time.

    Returns
    -------
    int
        Bytes.

    Raises
    ------
    ConfigError
        E310 when not even 64 rows fit.
    """
    budget = memory_budget(memory)
    fixed = BUILD_PROCESS + per_process * BLOCK_ENTRIES * (BATCH_BYTES + BLOCK_BYTES + PACKED_BYTES)
    least = WeightedGram.nbytes(n_genes, (0, min(ROWS, n_genes)))
    share = (budget - fixed) // per_process
    if share < least:
        needed = fixed + per_process * least
        msg = (
            f"{per_process} tasks at a time over pairs of {n_genes} genes need {megabytes(needed)}, "
            f"got {megabytes(budget)}"
        )
        fix = f"give --memory {megabytes(needed)} or more, or choose fewer genes (graph.n_genes)"
        raise ConfigError(msg, code="E310", where="memory", fix=fix)
    return share


def check_profile_memory(name: str, config: GraphConfig, n_genes: int, n_cells: int, memory: int | None) -> None:
    """Refuse a profile whose compression does not fit, before the pairs are summed.

    Parameters
    ----------
    name
        The dataset.
    config
        Which profile.
    n_genes, n_cells
        Genes N and cells of the graph.
    memory
        Bytes that a process may use; ``None``: not bounded.

    Raises
    ------
    ConfigError
        E310.
    """
    merged = {"gram": EIGEN_MATRICES * 8.0 * n_genes**2, "full": 16.0 * n_genes * n_cells}.get(config.profile, 0.0)
    needed = BUILD_PROCESS + merged
    if memory is not None and needed > memory:
        size = f"{n_genes} genes" if config.profile == "gram" else f"{n_genes} genes x {n_cells} cells"
        msg = f"profile `{config.profile}` of {size} needs {megabytes(needed)}, got {megabytes(memory)}"
        fix = "set graph.profile: randomized, choose fewer genes (graph.n_genes), or give more --memory"
        raise ConfigError(msg, code="E310", where=name, fix=fix)


def stage_memory(
    shape: BuildShape, config: GraphConfig, stripes: list[tuple[int, int]], at_a_time: int
) -> dict[str, StageMemory]:
    """Predict what each stage of a build holds.

    Parameters
    ----------
    shape
        Sizes.
    config
        How the graph is built.
    stripes
        Rows of each task over pairs.
    at_a_time
        Tasks that run in one process at a time.

    Returns
    -------
    dict
        By stage; what stays from stage to stage is under ``kept``, with no tasks.
    """
    shards = max(math.ceil(shape.cells / config.block_rows), 1)
    rows = min(config.block_rows, shape.cells)
    read = min(rows * shape.entries / max(shape.cells, 1), BLOCK_ENTRIES) * READ_BYTES
    packed = rows * shape.selected_entries / max(shape.cells, 1)
    table = shape.genes * TABLE_BYTES
    return {
        "kept": StageMemory(0.0, 0, table + CELL_BYTES * shape.cells),
        "scan": StageMemory(read + table, shards, 2 * table),
        "select": StageMemory(read, shards),
        "variance": StageMemory(read, shards),
        "extract": StageMemory(read + packed * EXTRACT_BYTES, shards),
        "pairs": _pairs_memory(shape, packed, stripes, at_a_time),
        "profile": _profile_memory(shape, config, packed, shards),
    }


def _pairs_memory(shape: BuildShape, packed: float, stripes: list[tuple[int, int]], at_a_time: int) -> StageMemory:
    largest = sorted((WeightedGram.nbytes(shape.selected, stripe) for stripe in stripes), reverse=True)[:at_a_time]
    sums = sum(largest) / len(largest)
    batch = min(packed, BATCH_CELLS * shape.selected_entries / max(shape.cells, 1), BLOCK_ENTRIES)
    counts = min(packed, BLOCK_ENTRIES) * BLOCK_BYTES + packed * PACKED_BYTES
    finish = FINISH_MATRICES * min(ROWS, shape.selected) * shape.selected * 8
    kept = 2 * 16 * shape.pairs / len(stripes)
    return StageMemory(sums + counts + batch * BATCH_BYTES + finish + kept, len(stripes), PAIR_BYTES * shape.pairs)


def _profile_memory(shape: BuildShape, config: GraphConfig, packed: float, shards: int) -> StageMemory:
    n, square = shape.selected, 8.0 * shape.selected**2
    groups = math.ceil(shards / GROUP_SHARDS)
    counts = min(packed, BLOCK_ENTRIES) * BLOCK_BYTES + packed * PACKED_BYTES
    dense = DENSE_MATRICES * DENSE_CELLS[1] * n * 8
    if config.profile == "full":
        values = 4.0 * n * shape.cells
        return StageMemory(2 * values / groups + counts + dense, groups, 4 * values)
    if config.profile == "randomized":
        sketch = 8.0 * n * min(n, config.profile_rank + OVERSAMPLING)
        return StageMemory(3 * sketch + counts + dense, groups, 8 * sketch)
    return StageMemory(2 * square + counts + dense, groups, EIGEN_MATRICES * square)
