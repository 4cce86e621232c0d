"""What this machine, or the container around this process, can give: memory, and a device to compute on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from musegnn.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

NVIDIA = Path("/dev/nvidia0")
UNLIMITED = 1 << 60
"""Limits from here on are how control groups of version 1 say that there is none."""


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


def resolve_device(device: str) -> str:
    """Return ``cpu`` or ``cuda`` for ``auto``, ``cpu`` or ``cuda``, without loading torch where no GPU is asked for.

    Raises
    ------
    ConfigError
        E308 when CUDA is asked for and not there, E302 for another name.
    """
    if device == "cpu" or (device == "auto" and not NVIDIA.exists()):
        return "cpu"
    if device not in {"auto", "cuda"}:
        msg = f"expected auto, cpu or cuda, got {device!r}"
        raise ConfigError(msg, code="E302", where="device", fix="name one of the three")
    import torch

    if torch.cuda.is_available() and torch.cuda.device_count() > 0:
        return "cuda"
    if device == "auto":
        return "cpu"
    msg = f"CUDA is asked for, and torch {torch.__version__} finds no GPU on this machine"
    raise ConfigError(msg, code="E308", where="device", fix="take `--device cpu`, or see `musegnn doctor`")
