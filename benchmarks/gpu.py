"""``python -m benchmarks.gpu [--quick] [--dry-run] [--results FOLDER]``: edge attention on a GPU.

Needs torch, Triton, torch-geometric and numpy. Checks all kernels against the reference in float64 and times nothing
when one is wrong (exit code 1). Then: rates of the device; layers of many shapes against PyG, PyG compiled and a kernel
with one vector per edge; lists against tiles; a training step; 82 graphs in one launch. Every section has its share of
eight minutes and says what it skips and why. Rows are appended to ``results/edge-attention-gpu.csv`` as they come.

``--dry-run`` goes through all of it on the CPU with tiny shapes, by the reference (with ``TRITON_INTERPRET=1``: by the
kernels), and times mean nothing.
"""

from __future__ import annotations

import argparse
import faulthandler
import sys
import time
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.attention.checks import check_kernels
from benchmarks.attention.contest import COMPILED, MATERIALISED, PYG, Contest, Layer, runs_kernels
from benchmarks.attention.graphs import STRUCTURES
from benchmarks.attention.step import measure_batch, measure_step
from benchmarks.attention.timing import peak_bytes, time_jobs
from benchmarks.registry import Measurement
from benchmarks.run import RESULTS, append_rows, as_row, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CASE = "edge-attention-gpu"
SECONDS = 480
SHARES = {"rates": 20, "training step": 40, "82 graphs": 40, "layers": 180, "paths": 60}
SIZES, QUICK_SIZES, DRY_SIZES = (1000, 2000, 5000, 10_000, 20_000), (1000, 5000), (40,)
DENSITIES, QUICK_DENSITIES = (0.05, 0.01, 0.2, 0.1, 0.3), (0.05, 0.01, 0.2)
HEADS = ((4, 32), (1, 8), (8, 16), (2, 128))
ATTRIBUTES = (2, 1, 4)
PATH_DENSITIES = (0.03, 0.01, 0.02, 0.05, 0.1)
COMPILED_SIZES = (1000, 5000)  # compilation takes most of a minute
GOALS = {PYG: 25.0, COMPILED: 6.0, MATERIALISED: 3.0}


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and how much."""

    device: torch.device
    impl: str
    quick: bool
    dry: bool


def layers(setting: Setting) -> Iterator[Layer]:
    """List the shapes, the most wanted first: sizes and densities, structures, precision, heads and attributes."""
    sizes = DRY_SIZES if setting.dry else QUICK_SIZES if setting.quick else SIZES
    densities = DENSITIES[:1] if setting.dry else QUICK_DENSITIES if setting.quick else DENSITIES
    for density, n_nodes in product(densities, sizes):
        yield Layer(n_nodes=n_nodes, density=density)
    middle = sizes[len(sizes) // 2]
    for structure in STRUCTURES[1:] if not setting.dry else STRUCTURES[-1:]:
        yield Layer(n_nodes=middle, density=0.05, structure=structure)
    for dtype in (torch.float32, torch.float16)[: 1 if setting.dry else 2]:
        yield Layer(n_nodes=middle, density=0.05, dtype=dtype)
    others = [(pair, n) for n in ATTRIBUTES for pair in HEADS if (pair, n) != (HEADS[0], ATTRIBUTES[0])]
    for (n_heads, dim), n_attributes in others[: 1 if setting.dry else None]:
        yield Layer(n_nodes=middle, density=0.05, heads=n_heads, dim=dim, n_attributes=n_attributes)
    if not setting.quick and not setting.dry:
        for ((n_heads, dim), n_attributes), density, n_nodes in product(others, densities, sizes):
            yield Layer(n_nodes=n_nodes, density=density, heads=n_heads, dim=dim, n_attributes=n_attributes)


def measure_layers(setting: Setting, has_time: Callable[[str], bool]) -> Iterator[Measurement]:
    """Time and weigh forward and backward of one layer, against those baselines that fit the memory."""
    for layer in layers(setting):
        if not has_time(layer.name):
            return
        yield from measure_layer(layer, setting)


def measure_layer(layer: Layer, setting: Setting) -> Iterator[Measurement]:
    """Time one layer against its baselines."""
    device = setting.device
    room = free_bytes(device)
    if layer.n_nodes**2 * 6 + layer.n_numbers // (layer.heads * layer.dim) * 80 > room:
        print(f"  skipped {layer.name}: the graph does not fit the memory")
        return
    contest = Contest(layer, device, setting.impl)
    baselines = []
    for baseline in (PYG, COMPILED, MATERIALISED):
        reason = why_not(baseline, layer, contest, setting)
        if reason:
            print(f"  skipped {baseline} at {layer.name}: {reason}")
        else:
            baselines.append(baseline)
    jobs = contest.jobs(baselines)
    seconds = time_jobs(jobs, device, seconds=0.0 if setting.dry else 1.0)
    memory = {name: peak_bytes(job, device) for name, job in jobs.items()}
    is_dense = layer.density >= 0.05
    for baseline in baselines:
        goal = ("ratio", ">=", GOALS[baseline] if is_dense else 1.5)
        has_goal = not setting.dry and (is_dense or baseline == MATERIALISED)
        yield Measurement(
            shape=layer.name, metric="layer_fwd_bwd", value=seconds["ours"] * 1e3, unit="ms", baseline=baseline,
            baseline_value=seconds[baseline] * 1e3, goal=goal if has_goal else None,
        )  # fmt: skip
        if memory["ours"] is not None and memory[baseline] is not None:
            yield Measurement(
                shape=layer.name, metric="layer_peak", value=memory["ours"] / 1e6, unit="MB", baseline=baseline,
                baseline_value=memory[baseline] / 1e6,
            )  # fmt: skip
    largest = layer.n_nodes == 20_000 and layer.density == 0.2 and layer.heads == 4 and layer.n_attributes == 2
    yield Measurement(
        shape=layer.name, metric="layer_fwd_bwd", value=seconds["ours"] * 1e3, unit="ms",
        goal=("value", "<=", 6.0) if largest and not setting.dry else None,
    )  # fmt: skip


def why_not(baseline: str, layer: Layer, contest: Contest, setting: Setting) -> str:
    """Return why a baseline is not run; empty: it is."""
    if contest.bytes_of(baseline) > 0.8 * free_bytes(setting.device):
        return f"about {contest.bytes_of(baseline) / 1e9:.0f} GB do not fit the memory"
    if baseline == MATERIALISED and not runs_kernels(setting.device):
        return "its kernels need a GPU or the interpreter"
    if baseline == COMPILED:
        usual = layer.structure == "uniform" and layer.density == 0.05 and layer.dtype == torch.bfloat16
        if setting.dry or not (usual and layer.n_nodes in COMPILED_SIZES and layer.heads == 4):
            return "compiled for two shapes alone, to save time"
    return ""


def measure_paths(setting: Setting, has_time: Callable[[str], bool]) -> Iterator[Measurement]:
    """Time lists against tiles: where the density from which tiles are taken should lie."""
    if not runs_kernels(setting.device):
        print("  skipped: lists and tiles need a GPU or the interpreter")
        return
    from musegnn.kernels.edge_attention.impl.triton import config

    usual = config.LIMITS
    sizes = DRY_SIZES if setting.dry else QUICK_SIZES if setting.quick else SIZES
    for n_nodes, dtype, density in product(
        sizes, (torch.bfloat16, torch.float32), PATH_DENSITIES[: 1 if setting.dry else None]
    ):
        layer = Layer(n_nodes=n_nodes, density=density, dtype=dtype)
        if not has_time(layer.name):
            return
        contest = Contest(layer, setting.device, setting.impl)
        run = contest.jobs([])["ours"]

        def with_tiles_from(bound: float, run: Callable[[], object] = run) -> None:
            config.LIMITS = config.Limits(tile_density=bound)
            run()

        jobs = {"tiles": partial(with_tiles_from, 0.0), "lists": partial(with_tiles_from, 2.0)}
        try:
            seconds = time_jobs(jobs, setting.device, seconds=0.0 if setting.dry else 0.3)
        finally:
            config.LIMITS = usual
        yield Measurement(
            shape=layer.name, metric="tiles_fwd_bwd", value=seconds["tiles"] * 1e3, unit="ms", baseline="lists",
            baseline_value=seconds["lists"] * 1e3,
        )  # fmt: skip


def measure_device_rates(setting: Setting, has_time: Callable[[str], bool]) -> Iterator[Measurement]:
    """Measure what predictions rest on."""
    del has_time
    if not runs_kernels(setting.device):
        print("  skipped: the kernels need a GPU or the interpreter")
        return
    from benchmarks.attention.rates import measure_rates

    yield from measure_rates(setting.device, tiny=setting.dry)


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a GPU, or 2 GB."""
    if device.type != "cuda":
        return 2 << 30
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)[0]


def device_name(device: torch.device) -> str:
    """Name the GPU; on the CPU say that it was a dry run."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu (dry run)"


def versions() -> str:
    """List the versions that matter on a GPU."""
    found = [f"python {sys.version.split()[0]}", f"cuda {torch.version.cuda}"]
    for package in ("torch", "triton", "torch-geometric", "numpy"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} absent")
    return "; ".join(found)


def run_section(
    name: str, measure: Callable[[Setting, Callable[[str], bool]], Iterator[Measurement]], setting: Setting, path: Path
) -> None:
    """Run a section within its time; rows are written as they come."""
    end = time.perf_counter() + SHARES[name] * (0.3 if setting.quick else 1.0)

    def has_time(shape: str) -> bool:
        if time.perf_counter() < end:
            return True
        print(f"  skipped {shape} and what follows: the time of this section is over")
        return False

    print(f"\n{name}")
    for measurement in measure(setting, has_time):
        row = as_row(CASE, measurement)
        row |= {"device": device_name(setting.device), "versions": versions()}
        append_rows(path, [row])
        print("  " + describe(row), flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Check, then measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer shapes, within three minutes")
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes on the CPU; times mean nothing")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="where the CSV file is")
    options = parser.parse_args(arguments)
    if not options.dry_run and not torch.cuda.is_available():
        parser.error("no GPU is there; --dry-run goes through everything on the CPU")
    device = torch.device("cpu" if options.dry_run else "cuda")
    setting = Setting(
        device=device,
        impl="triton" if runs_kernels(device) else "reference",
        quick=options.quick,
        dry=options.dry_run,
    )
    if not options.dry_run:
        faulthandler.dump_traceback_later(SECONDS, exit=True)  # whatever hangs, the rows so far are on disk
    print(f"{device_name(setting.device)}; {versions()}\n\ncorrectness")
    holds = True
    for check in check_kernels(setting.device, setting.impl, tiny=setting.dry):
        print(f"  {'ok  ' if check.holds else 'FAIL'} {check.claim} (got {check.got})", flush=True)
        holds &= check.holds
    if not holds:
        print("not timed, because results are wrong")
        return 1
    path = options.results / f"{CASE}{'-dry-run' if setting.dry else ''}.csv"
    sections: dict[str, Any] = {  # Any: all take a setting and a clock
        "rates": measure_device_rates,
        "training step": measure_step,
        "82 graphs": measure_batch,
        "layers": measure_layers,
        "paths": measure_paths,
    }
    for name, measure in sections.items():
        run_section(name, measure, setting, path)
    faulthandler.cancel_dump_traceback_later()
    return 0


if __name__ == "__main__":
    sys.exit(main())
