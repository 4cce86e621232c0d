"""The memory that a build may take, and how pairs are cut to fit into it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from musegnn.coexpression.cscore import ROWS
from musegnn.errors import ConfigError
from musegnn.kernels.gram import WeightedGram
from musegnn.units import BUILD_PROCESS, megabytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from musegnn.config import GraphConfig

BLOCK_ENTRIES = 1 << 22
BLOCK_BYTES = 32  # per entry of a block: as read, converted and checked, or as the Gram kernel takes it
UNLIMITED = 1 << 60
"""Limits from here on are how control groups of version 1 say that there is none."""
EIGEN_MATRICES = 8.5  # of N x N, while the profile is compressed


def available_memory(root: Path = Path("/")) -> int:
    """Return the bytes that this machine, or the container this runs in, can give to a process now.

    `root` is the file system that describes them.
    """
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    return min([free, *_left_in_groups(root)])


def _left_in_groups(root: Path) -> Iterator[int]:
    """Yield what the memory limit of each control group around this process leaves, of version 1 and 2."""
    groups = root / "sys/fs/cgroup"
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, place = line.split(":", 2)
        if controllers not in {"", "memory"} and "memory" not in controllers.split(","):
            continue
        version_2 = controllers == ""
        top = groups if version_2 else groups / "memory"
        limit, usage = (
            ("memory.max", "memory.current") if version_2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        )
        cached = "inactive_file" if version_2 else "total_inactive_file"
        # Inside a container the place is often that of the host, and the limits are at the top.
        inner = top / place.strip().strip("/")
        for group in dict.fromkeys([inner, *(p for p in inner.parents if p.is_relative_to(top)), top]):
            bound = next(iter(_lines(group / limit)), "max").strip()
            if not bound.isdigit() or int(bound) >= UNLIMITED:
                continue
            used = int(next(iter(_lines(group / usage)), "0"))
            stats = dict(stat.split(None, 1) for stat in _lines(group / "memory.stat") if " " in stat)
            yield max(int(bound) - max(used - int(stats.get(cached, 0)), 0), 0)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def memory_budget(memory: int | None) -> int:
    """Return the bytes that a process may use: `memory`, or half of what is free."""
    return available_memory() // 2 if memory is None else memory


def most_genes(config: GraphConfig, n_genes: int) -> int:
    """Return the largest number of genes that can be selected of the `n_genes` of a source."""
    if config.selection == "list" and isinstance(config.genes, tuple):
        return min(len(config.genes), n_genes)
    return n_genes if config.selection == "all" else min(config.n_genes, n_genes)


def task_memory(n_genes: int, memory: int | None, per_process: int) -> int:
    """Return the largest size in bytes of the sums of one task over pairs of `n_genes` genes.

    A process may use `memory` bytes, by default half of what is free, and runs `per_process` tasks at a time.

    Raises
    ------
    ConfigError
        E310 when not even 64 rows fit.
    """
    budget = memory_budget(memory)
    fixed = BUILD_PROCESS + per_process * BLOCK_ENTRIES * BLOCK_BYTES
    least = WeightedGram.nbytes(n_genes, (0, min(ROWS, n_genes)))
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
