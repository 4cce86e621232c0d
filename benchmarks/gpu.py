"""``python -m benchmarks.gpu [--quick] [--dry-run] [--plan] [--results FOLDER]``: edge attention on a GPU.

Needs torch, Triton, torch-geometric and numpy. First all kernels are checked against the reference in float64 and
compiled, in parallel processes; a precision whose results are wrong is not timed (exit code 1). Then, the most telling
first: layers of many shapes against PyG, PyG compiled and a kernel with one vector per edge; lists against tiles, which
sets where tiles are taken; a training step; 82 graphs in one launch; rates of the device. All takes nine minutes at
most, every section has its share, and what fails is named and left out (:mod:`benchmarks.gpu_sections`). Rows are
appended to ``results/edge-attention-gpu.csv`` as they come.

``--dry-run`` goes through all of it on the CPU, in Triton's interpreter and with tiny shapes; times mean nothing. No
GPU has run this yet.
"""

from __future__ import annotations

import sys
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import torch

from benchmarks.gpu_sections import CheckItem, Item, Program, Section, main
from benchmarks.registry import Check, Measurement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.attention.contest import Contest, Layer
    from benchmarks.gpu_sections import Setting

CASE = "edge-attention-gpu"
SIZES, QUICK_SIZES, DRY_SIZES = (1000, 2000, 5000, 10_000, 20_000), (1000, 5000), (40,)
DENSITIES, QUICK_DENSITIES = (0.05, 0.01, 0.2, 0.1, 0.3), (0.05, 0.01, 0.2)
HEADS = ((4, 32), (1, 8), (8, 16), (2, 128))
ATTRIBUTES = (2, 1, 4)
PATH_SIZES = (1000, 5000, 20_000)
PATH_DENSITIES = (0.03, 0.01, 0.02, 0.05, 0.1)
COMPILED_SIZES = (1000, 5000)  # compilation takes most of a minute


def layers(setting: Setting) -> Iterator[Layer]:
    """List the shapes, the most wanted first: sizes and densities, structures, precision, heads and attributes."""
    from benchmarks.attention.contest import Layer
    from benchmarks.attention.graphs import STRUCTURES

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


def checks(setting: Setting) -> Iterator[CheckItem]:
    """List the checks, and a small run of each kind of layer that is timed, which compiles its kernels."""
    from benchmarks.attention.checks import check_items
    from benchmarks.attention.contest import Layer

    yield from check_items(setting)
    kinds = dict.fromkeys((layer.heads, layer.dim, layer.n_attributes, layer.dtype) for layer in layers(setting))
    # sizes that 16 divides have kernels of their own
    sizes = DRY_SIZES if setting.dry else (1000, 2000)
    for (n_heads, dim, n_attributes, dtype), n_nodes, density in product(kinds, sizes, (0.01, 0.05)):
        layer = Layer(n_nodes=n_nodes, density=density, heads=n_heads, dim=dim, n_attributes=n_attributes, dtype=dtype)
        yield CheckItem("", partial(_compile, layer, setting))
        if setting.dry:
            return


def _compile(layer: Layer, setting: Setting) -> Check:
    from benchmarks.attention.contest import Contest

    out = Contest(layer, setting.device, setting.impl).jobs([])["ours"]()
    return Check(claim=f"{layer.name} runs", holds=bool(out.isfinite().all()), got="finite numbers")


def layer_items(setting: Setting) -> Iterator[Item]:
    """List layers, forward and backward, against those baselines that fit the memory."""
    for layer in layers(setting):
        if layer.precision not in setting.wrong:
            yield Item(layer.name, partial(measure_layer, layer, setting))


def measure_layer(layer: Layer, setting: Setting) -> Iterator[Measurement]:
    """Time and weigh one layer against its baselines."""
    from benchmarks.attention.contest import COMPILED, MATERIALISED, PYG, Contest
    from benchmarks.attention.timing import peak_bytes, time_jobs

    device, goals = setting.device, {PYG: 25.0, COMPILED: 6.0, MATERIALISED: 3.0}
    room = free_bytes(device)
    if layer.n_nodes**2 * 6 + layer.n_numbers // (layer.heads * layer.dim) * 80 > room:
        print(f"  skipped {layer.name}: the graph does not fit the memory")
        return
    contest = Contest(layer, device, setting.impl)
    baselines = []
    for baseline in goals:
        reason = why_not(baseline, layer, contest, setting)
        if reason:
            print(f"  skipped {baseline} at {layer.name}: {reason}")
        else:
            baselines.append(baseline)
    jobs = contest.jobs(baselines)
    seconds = time_jobs(jobs, device, seconds=0.0 if setting.dry else 1.0)
    memory = {name: peak_bytes(jobs[name], device) for name in seconds}
    is_dense = layer.density >= 0.05
    for baseline in baselines:
        if baseline not in seconds:
            continue
        goal = ("ratio", ">=", goals[baseline] if is_dense else 1.5)
        has_goal = not setting.dry and (is_dense or baseline == MATERIALISED)
        yield Measurement(
            shape=layer.name, metric="layer_fwd_bwd", value=seconds["ours"] * 1e3, unit="ms", baseline=baseline,
            baseline_value=seconds[baseline] * 1e3, goal=goal if has_goal else None,
        )  # fmt: skip
        ours, theirs = memory["ours"], memory[baseline]
        if ours is not None and theirs is not None:
            yield Measurement(
                shape=layer.name, metric="layer_peak", value=ours / 1e6, unit="MB", baseline=baseline,
                baseline_value=theirs / 1e6,
            )  # fmt: skip
    largest = layer.n_nodes == 20_000 and layer.density == 0.2 and layer.heads == 4 and layer.n_attributes == 2
    yield Measurement(
        shape=layer.name, metric="layer_fwd_bwd", value=seconds["ours"] * 1e3, unit="ms",
        goal=("value", "<=", 6.0) if largest and not setting.dry else None,
    )  # fmt: skip


def why_not(baseline: str, layer: Layer, contest: Contest, setting: Setting) -> str:
    """Return why a baseline is not run, or an empty text where it is."""
    from benchmarks.attention.contest import COMPILED, MATERIALISED, runs_kernels

    if contest.bytes_of(baseline) > 0.8 * free_bytes(setting.device):
        return f"about {contest.bytes_of(baseline) / 1e9:.0f} GB do not fit the memory"
    if baseline == MATERIALISED and not runs_kernels(setting.device):
        return "its kernels need a GPU or the interpreter"
    if baseline == COMPILED:
        usual = layer.structure == "uniform" and layer.density == 0.05 and layer.dtype == torch.bfloat16
        if setting.dry or not (usual and layer.n_nodes in COMPILED_SIZES and layer.heads == 4):
            return "compiled for two shapes alone, to save time"
    return ""


def path_items(setting: Setting) -> Iterator[Item]:
    """List layers of several densities, by lists and by tiles, to find the density from which tiles pay."""
    from benchmarks.attention.contest import Layer

    sizes = DRY_SIZES if setting.dry else QUICK_SIZES if setting.quick else PATH_SIZES
    densities = PATH_DENSITIES[: 1 if setting.dry else None]
    for n_nodes, dtype, density in product(sizes, (torch.bfloat16, torch.float32), densities):
        layer = Layer(n_nodes=n_nodes, density=density, dtype=dtype)
        if layer.precision not in setting.wrong:
            yield Item(layer.name, partial(measure_paths, layer, setting))


def measure_paths(layer: Layer, setting: Setting) -> Iterator[Measurement]:
    """Time lists against tiles."""
    from benchmarks.attention.contest import Contest
    from benchmarks.attention.timing import time_jobs
    from musegnn.kernels.edge_attention.impl.triton import config

    usual, run = config.LIMITS, Contest(layer, setting.device, setting.impl).jobs([])["ours"]

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


def step_items(setting: Setting) -> Iterator[Item]:
    """List training steps."""
    from benchmarks.attention import step

    yield from step.step_items(setting)


def batch_items(setting: Setting) -> Iterator[Item]:
    """List batches of graphs."""
    from benchmarks.attention import step

    yield from step.batch_items(setting)


def rate_items(setting: Setting) -> Iterator[Item]:
    """List what predictions rest on."""
    from benchmarks.attention.rates import measure_rates

    yield Item("rates", partial(measure_rates, setting.device, tiny=setting.dry))


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a GPU, or 2 GB."""
    if device.type != "cuda":
        return 2 << 30
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)[0]


PROGRAM = Program(
    module="benchmarks.gpu",
    case=CASE,
    needs=("torch", "triton", "torch_geometric", "numpy"),
    check_seconds=110,
    checks=checks,
    sections={
        "layers": Section(200, layer_items),
        "paths": Section(90, path_items),
        "training step": Section(50, step_items),
        "82 graphs": Section(50, batch_items),
        "rates": Section(30, rate_items),
    },
)

if __name__ == "__main__":
    sys.exit(main(PROGRAM, __doc__))
