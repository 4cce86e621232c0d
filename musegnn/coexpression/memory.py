"""The memory that a build may take, and how pairs are cut to fit into it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from musegnn.coexpression.cscore import ROWS
from musegnn.coexpression.pairs import sums_bytes
from musegnn.errors import ConfigError
from musegnn.machine import available_memory
from musegnn.units import BUILD_PROCESS, megabytes

if TYPE_CHECKING:
    from musegnn.config import GraphConfig

BLOCK_ENTRIES = 1 << 22
BLOCK_BYTES = 32  # per entry of a block: as read, converted and checked, or as the Gram kernel takes it
EIGEN_MATRICES = 8.5  # of N x N, while the profile is compressed


def memory_budget(memory: int | None) -> int:
    """Return the bytes that a process may use: `memory`, or half of what is free."""
    return available_memory() // 2 if memory is None else memory


def most_genes(config: GraphConfig, n_genes: int) -> int:
    """Return the largest number of genes that can be selected of the `n_genes` of a source."""
    if config.selection == "list" and isinstance(config.genes, tuple):
        return min(len(config.genes), n_genes)
    return n_genes if config.selection == "all" else min(config.n_genes, n_genes)


def task_memory(n_genes: int, budget: int, per_process: int) -> int:
    """Return the largest size in bytes of the sums of one task over pairs of `n_genes` genes.

    A process may use `budget` bytes and runs `per_process` tasks at a time.

    Raises
    ------
    ConfigError
        E310 when not even 64 rows fit.
    """
    fixed = BUILD_PROCESS + per_process * BLOCK_ENTRIES * BLOCK_BYTES
    least = sums_bytes(n_genes, (0, min(ROWS, n_genes)))
    share = (budget - fixed) // per_process
    if share < least:
        needed = megabytes(fixed + per_process * least)
        pairs = f"{per_process} tasks at a time over pairs of {n_genes} genes"
        msg = f"{pairs} need {needed}, got {megabytes(budget)}"
        fix = f"give --memory {needed} or more, or choose fewer genes (graph.n_genes)"
        raise ConfigError(msg, code="E310", where="memory", fix=fix)
    return share


def check_profile_memory(name: str, config: GraphConfig, n_genes: int, memory: int | None) -> None:
    """Refuse with E310 a profile of dataset `name` whose compression takes more than `memory` bytes."""
    needed = BUILD_PROCESS + EIGEN_MATRICES * 8.0 * n_genes**2
    if config.profile_rank is None and memory is not None and needed > memory:
        msg = f"the profile of {n_genes} genes needs {megabytes(needed)}, got {megabytes(memory)}"
        fix = "set graph.profile_rank: 256, choose fewer genes (graph.n_genes), or give more --memory"
        raise ConfigError(msg, code="E310", where=name, fix=fix)
