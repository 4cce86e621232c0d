"""The GPU of an actor: its name, its memory, and whether it still answers."""

from __future__ import annotations

import torch

from musegnn.machine import resolve_device
from musegnn.units import format_bytes


def describe_device(device: str) -> str:
    """Bind a process to its device, ``cpu`` or ``cuda``, and return what it is, as messages show it.

    Raises
    ------
    ConfigError
        E308 when CUDA is asked for and not there.
    """
    if resolve_device(device) == "cpu":
        return "cpu"
    torch.cuda.set_device(0)  # Ray shows an actor its own GPU alone
    about = torch.cuda.get_device_properties(0)
    return f"cuda ({about.name}, {format_bytes(about.total_memory)})"


def device_bytes(device: str) -> int:
    """Return the largest memory that torch has held on the GPU so far; 0 on a CPU."""
    return int(torch.cuda.max_memory_allocated()) if device == "cuda" else 0


def is_lost(device: str) -> bool:
    """Return whether the GPU no longer answers this process, as after an illegal access: no later work can succeed."""
    if device != "cuda":
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False
