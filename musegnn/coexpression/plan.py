"""What a build will take, before it runs: passes, memory, disk and time.

Memory is the sum of what one process holds: a base (the interpreter and compiled libraries), the tasks that run in it
at a time, each at the stage that needs most, and what is merged between stages. The constants are bytes counted from
the arrays in the code, and one factor for what allocators keep; ``python -m benchmarks estimate`` holds them against
measured peaks.

Legend: C cells, G genes of the source, N genes selected, E entries (counts above zero).
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from musegnn.coexpression.cscore import ROWS
from musegnn.errors import ConfigError
from musegnn.kernels.gram import WeightedGram

BASE = 300 * 2**20
BLOCK_ENTRIES = 1 << 22
READ_BYTES = 32
EXTRACT_BYTES = 24
BATCH_BYTES = 20
PACKED_BYTES = 4
LEAST_SHARE = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildEstimate:
    """What building one dataset takes.

    Attributes
    ----------
    name
        The dataset.
    passes
        Passes over the source.
    memory
        Peak of the process that builds, with all its tasks, in bytes.
    work_bytes
        Files of unfinished work on the store's disk, in bytes; removed at the end.
    store_bytes
        What stays in the store, in bytes, for a graph of 10 % density among the stored pairs.
    cpu_seconds
        Processor time on a core like the one measured (docs/coexpression.md).
    stripes
        Tasks over pairs.
    """

    name: str
    passes: int
    memory: int
    work_bytes: int
    store_bytes: int
    cpu_seconds: float
    stripes: int

    def to_json(self) -> dict[str, Any]:  # JSON
        """Give plain values."""
        return asdict(self)


def available_memory() -> int:
    """Give the bytes that this machine can give to a process now."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123  not a file of the user's
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def task_memory(n_genes: int, memory: int | None, per_process: int) -> int:
    """Give the largest size of the sums of one task over pairs.

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
    budget = available_memory() // 2 if memory is None else memory
    fixed = BASE + per_process * BLOCK_ENTRIES * (BATCH_BYTES + 8 + PACKED_BYTES)
    least = WeightedGram.nbytes(n_genes, (0, min(ROWS, n_genes)))
    share = (budget - fixed) // per_process
    if share < least:
        needed = fixed + per_process * least
        msg = (
            f"{per_process} tasks at a time over pairs of {n_genes} genes need {_megabytes(needed)}, "
            f"got {_megabytes(budget)}"
        )
        fix = f"give --memory {_megabytes(needed)} or more, or choose fewer genes (graph.n_genes)"
        raise ConfigError(msg, code="E310", where="memory", fix=fix)
    return share


def _megabytes(n_bytes: int) -> str:
    return f"{-(-n_bytes // 10**6)}MB"
