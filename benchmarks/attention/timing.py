"""Time jobs in turns on a GPU or CPU."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

WARM_UP = 2
LEAST_ROUNDS, MOST_ROUNDS = 3, 50


def time_jobs(jobs: Mapping[str, Callable[[], object]], device: torch.device, *, seconds: float) -> dict[str, float]:
    """Return the median seconds of each job, timed in turns after a warm-up, without those that failed.

    Parameters
    ----------
    jobs
        Functions to time, by name.
    device
        Device of the jobs; on a GPU they are timed between events of its stream.
    seconds
        After about this long no further round starts; there are at least three, at most 50. 0: one round without a
        warm-up.
    """
    warm_up, least = (WARM_UP, LEAST_ROUNDS) if seconds > 0 else (0, 1)
    jobs = {name: job for name, job in jobs.items() if _runs(name, job, warm_up, device)}
    times: dict[str, list[float]] = {name: [] for name in jobs}
    end = time.perf_counter() + seconds
    for number in range(MOST_ROUNDS):
        if number >= least and time.perf_counter() > end:
            break
        for name, job in jobs.items():
            times[name].append(_once(job, device))
    return {name: statistics.median(values) for name, values in times.items()}


def peak_bytes(job: Callable[[], object], device: torch.device) -> int | None:
    """Return the memory that a job takes at its peak beyond what is there before; ``None`` on a CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    job()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _runs(name: str, job: Callable[[], object], warm_up: int, device: torch.device) -> bool:
    """Warm a job up; say why where it fails, unless the GPU is lost with it."""
    try:
        for _ in range(warm_up):
            job()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    except Exception as error:
        if device.type == "cuda":
            torch.cuda.empty_cache()  # raises where the GPU no longer answers
            torch.cuda.synchronize(device)
        lines = str(error).strip().splitlines() or [""]
        print(f"  failed {name}: {type(error).__name__}: {lines[0]}", flush=True)
        return False
    return True


def _once(job: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        job()
        return time.perf_counter() - start
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize(device)
    first.record()
    job()
    last.record()
    torch.cuda.synchronize(device)
    return first.elapsed_time(last) / 1e3
