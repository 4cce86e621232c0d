"""What the device itself does per second: copies, reads from the second-level cache, exponentials, products."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from benchmarks.attention.timing import time_jobs
from benchmarks.registry import Measurement

if TYPE_CHECKING:
    from collections.abc import Iterator


@triton.jit
def cache_read_kernel(p_x: tl.tensor, p_out: tl.tensor, n_rows: int, STEPS: tl.constexpr, W: tl.constexpr) -> None:
    """Read rows of W numbers in a scattered order."""
    i = tl.program_id(0).to(tl.int64)
    b_w = tl.arange(0, W)
    b_sum = tl.zeros([W], tl.float32)
    for step in range(STEPS):
        row = (i * 7919 + step * 104_729) % n_rows
        b_sum += tl.load(p_x + row * W + b_w)
    tl.store(p_out + i, tl.sum(b_sum))


@triton.jit
def exponential_kernel(p_out: tl.tensor, STEPS: tl.constexpr, W: tl.constexpr) -> None:
    """Take powers of two of numbers in registers, each of the one before."""
    b_w = tl.program_id(0) * W + tl.arange(0, W)
    b_x = b_w.to(tl.float32) * -1e-6
    for _ in range(STEPS):
        b_x = tl.exp2(b_x - 1.0)
    tl.store(p_out + b_w, b_x)


def measure_rates(device: torch.device, *, tiny: bool) -> Iterator[Measurement]:
    """Measure the rates that predictions rest on; tiny sizes only show that it runs."""
    seconds_each = 0.0 if tiny else 0.5
    size = 1 << (12 if tiny else 29)
    x = torch.zeros(size, device=device)
    seconds = time_jobs({"copy": x.clone}, device, seconds=seconds_each)["copy"]
    yield Measurement(shape=f"{size} float32", metric="copy_rate", value=2 * 4 * size / seconds, unit="B/s")
    del x
    programs, steps, width, n_rows = (4, 3, 64, 16) if tiny else (8192, 512, 512, 5000)
    rows, out = torch.zeros((n_rows, width), device=device), torch.zeros(programs, device=device)
    seconds = time_jobs(
        {"read": lambda: cache_read_kernel[(programs,)](rows, out, n_rows, STEPS=steps, W=width, num_warps=4)},
        device,
        seconds=seconds_each,
    )["read"]
    moved = programs * steps * width * 4
    yield Measurement(shape=f"{n_rows}x{width} float32", metric="cache_rate", value=moved / seconds, unit="B/s")
    powers = torch.zeros(programs * width, device=device)
    seconds = time_jobs(
        {"exp2": lambda: exponential_kernel[(programs,)](powers, STEPS=steps, W=width, num_warps=4)},
        device,
        seconds=seconds_each,
    )["exp2"]
    yield Measurement(shape="registers", metric="exp2_rate", value=programs * steps * width / seconds, unit="1/s")
    n = 64 if tiny else 8192
    for dtype in (torch.bfloat16, torch.float32):
        a = torch.zeros((n, n), dtype=dtype, device=device)
        seconds = time_jobs({"product": lambda a=a: a @ a}, device, seconds=seconds_each)["product"]
        name = str(dtype).removeprefix("torch.")
        yield Measurement(shape=f"{n}^3 {name}", metric="product_rate", value=2 * n**3 / seconds, unit="FLOP/s")
