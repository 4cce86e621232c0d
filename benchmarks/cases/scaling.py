"""How training would scale: a simulation, held against runs on 1, 2 and 4 actors of this machine.

Times of single datasets are measured here in one process. The table for 8 to 1024 GPUs is simulated from *assumed*
times of GPUs (``GPU_*`` below), which nobody has measured, and is marked so; ``benchmarks/reports/scaling.md`` and its
figure are written from it.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.clusters import Atlas, train
from benchmarks.registry import Check, Measurement
from benchmarks.scaling import Dataset, Job, Machine, plan, simulate, split

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.scaling import Outcome
    from musegnn.config import AtlasConfig
    from musegnn.data_store import Store
    from musegnn.training.phases import Phase

REPORT = Path(__file__).resolve().parents[1] / "reports" / "scaling.md"
MEASURED = (Atlas((1000,) * 8), Atlas((400, 600, 800, 1000, 1000, 1200, 1400, 1600)))
QUICK = Atlas((200,) * 4, rounds=8, checkpoint_every=2)
WITHIN = 0.20
WARM_ROUNDS = 2
LOOPBACK_BANDWIDTH = 1e9
LOOPBACK_LATENCY = 3e-4

# Assumed, not measured: an H100-class GPU.
GPU_LAUNCH = 6e-3  # of one dataset's many small kernels, without CUDA graphs
GPU_EDGE = 1.5e-10  # per edge entry, all convolutions forward and backward
GPU_FLOPS = 1.5e14  # of the decoder's products in TF32
GPU_BANDWIDTH = 2.4e12  # of Adam's pass over the weights, bytes
LINK = Machine(latency=1e-5, bandwidth=2.5e10)
GPUS = (8, 16, 32, 64, 128, 256, 512, 1024)
COUNTS = (82, 1000, 10_000)
SIZES = (1000, 5000, 20_000)
DENSITY = 0.05
DIM = 32
SHARED_BYTES = 8.0 * 1.5e6
N_GROUPS, GROUP_BYTES = 60, 8.0 * 6e4


class Scaling:
    """Random datasets on this machine; assumed ones on GPUs."""

    name = "scaling"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Solve two cases by hand."""
        one = Dataset(1000, 0.1, 0.4, 0.1, 0.2, 0.05)
        free = Machine(0.0, float("inf"))
        for n, expected in ((1, 8 * one.seconds), (4, 2 * one.seconds)):
            found = simulate(Job((one,) * 8), [k % n for k in range(8)], free).seconds
            claim = f"8 equal datasets on {n} workers without a network take {expected:.2f} s"
            yield Check(claim=claim, holds=abs(found - expected) < 1e-9, got=f"{found:.4f} s")

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Predict rounds on this machine and train them; then simulate GPUs."""
        from musegnn.cluster.session import ray_session

        with ray_session(None, cpus=8):
            for atlas in (QUICK,) if quick else MEASURED:
                yield from _validate(atlas, (1, 2) if quick else (1, 2, 4), goals=not quick)
        yield from _gpus(write=not quick)


def _validate(atlas: Atlas, counts: tuple[int, ...], *, goals: bool) -> Iterator[Measurement]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store, config = atlas.make(folder)
        alone = _single_datasets(store, config, atlas)
        job = Job(alone, config.model.dim, _shared_bytes(store, config))
        cores = len(os.sched_getaffinity(0))
        machine = Machine(LOOPBACK_LATENCY, LOOPBACK_BANDWIDTH, cores)
        for n in counts:
            owner = plan(job, n)
            predicted = simulate(job, owner, machine).seconds
            found = train(folder / f"run{n}", store, config, actors=n, placement=owner)
            seconds = statistics.median(found.round_seconds(atlas.checkpoint_every))
            shape = f"{atlas} P={n}, {cores} cores"
            yield Measurement(shape=shape, metric="round, predicted", value=predicted, unit="s")
            yield Measurement(shape=shape, metric="round, measured", value=seconds, unit="s")
            goal = ("value", "<=", WITHIN) if goals else None
            error = abs(predicted / seconds - 1.0)
            yield Measurement(shape=shape, metric="error of the prediction", value=error, unit="", goal=goal)


def _single_datasets(store: Store, config: AtlasConfig, atlas: Atlas) -> tuple[Dataset, ...]:
    """Time each stage of each dataset in one process, by medians over rounds."""
    from musegnn.training.engine import Engine
    from musegnn.training.phases import Phases
    from musegnn.training.prepare import make_model, prepare

    torch.set_num_threads(1)
    data = prepare(store, config)
    phases = Phases()
    engine = Engine(make_model(data, config), config.training, phases=phases)
    spent: dict[tuple[str, str], list[float]] = {}
    enter, began = phases.enter, time.perf_counter()

    def noting(phase: Phase, round_: int, dataset: str | None = None) -> None:
        nonlocal began
        was, ended = phases.now, time.perf_counter()
        if was.dataset is not None and was.round > WARM_ROUNDS:
            spent.setdefault((was.phase, was.dataset), []).append(ended - began)
        enter(phase, round_, dataset)
        began = time.perf_counter()

    phases.enter = noting  # type: ignore[method-assign]
    for round_ in range(1, atlas.rounds // 2 + 1):
        engine.round(round_)
    names = [graph.name for graph in data.graphs]
    shared = phases.seconds()["step"] / (atlas.rounds // 2) - sum(
        statistics.median(spent[("step", name)]) for name in names
    )
    sums = phases.seconds()["reduce"] / (atlas.rounds // 2)
    rest = max(0.0, shared + sums) / len(names)
    return tuple(
        Dataset(
            graph.n_genes,
            *(statistics.median(spent[(stage, name)]) for stage in ("encode", "reconstruct", "compare", "backward")),
            statistics.median(spent[("step", name)]) + rest,
        )
        for name, graph in zip(names, data.graphs, strict=True)
    )


def _shared_bytes(store: Store, config: AtlasConfig) -> float:
    from musegnn.training.prepare import make_model, prepare

    units = make_model(prepare(store, config), config).units.values()
    return 8.0 * sum(p.numel() for unit in units if unit.kind == "shared" for p in unit.parameters)


def gpu_dataset(n_genes: int) -> Dataset:
    """Assume the times of a dataset: ``mlp`` up to 5000 genes (in row blocks of 512 above 1000), then ``pairwise``."""
    entries = DENSITY * n_genes**2
    attention = GPU_EDGE * entries
    rows = n_genes if n_genes <= 1000 else 512
    mlp = n_genes <= 5000
    decode = 3 * 2.0 * 2.0 * rows * n_genes**2 / GPU_FLOPS if mlp else 1e-3
    weights = 3.0 * n_genes**2 if mlp else 0.0
    compare = 6.0 * (n_genes / 2) ** 2 * DIM * 2 / GPU_FLOPS
    part = GPU_LAUNCH / 5
    return Dataset(
        n_genes,
        part + attention / 3,
        part + decode,
        part + compare,
        part + 2 * attention / 3,
        part + 28 * weights / GPU_BANDWIDTH,
    )


def _sizes(count: int, n_genes: int, *, equal: bool) -> list[int]:
    if equal:
        return [n_genes] * count
    return np.random.default_rng(0).integers(n_genes // 4, n_genes + 1, count).tolist()


def _gpus(*, write: bool) -> Iterator[Measurement]:
    found: list[tuple[int, int, bool, int, Outcome, Outcome]] = []
    for count in COUNTS:
        for n_genes in SIZES:
            for equal in (True, False):
                job = Job(tuple(gpu_dataset(n) for n in _sizes(count, n_genes, equal=equal)), DIM, SHARED_BYTES)
                for gpus in GPUS:
                    flat = _simulated(job, gpus)
                    teams = _simulated(split(job, gpus, LINK), gpus)
                    found.append((count, n_genes, equal, gpus, flat, teams))
                    kind = "equal" if equal else "unequal"
                    shape = f"simulated: T={count} N={n_genes} {kind} P={gpus}"
                    yield Measurement(shape=shape, metric="round", value=flat.seconds, unit="s")
                    work = sum(d.seconds for d in job.datasets)
                    value = work / (gpus * flat.seconds)
                    limit = "too few datasets" if gpus > count else flat.limit
                    yield Measurement(shape=shape, metric=f"efficiency; limit: {limit}", value=value, unit="")
                    value = work / (gpus * teams.seconds)
                    yield Measurement(shape=shape, metric="efficiency with teams", value=value, unit="")
    groups = []
    for gpus in GPUS:
        flat_seconds, owned_seconds = (_grouped(gpus, owners=owners).seconds for owners in (False, True))
        groups.append((gpus, flat_seconds, owned_seconds))
        shape = f"simulated: T=1000 N=1000 equal, 60 groups P={gpus}"
        yield Measurement(shape=shape, metric="round", value=flat_seconds, unit="s")
        yield Measurement(shape=shape, metric="round with owner-reduce", value=owned_seconds, unit="s")
    if write:
        from benchmarks.scaling_report import write_report

        write_report(REPORT, found, groups)


def _grouped(gpus: int, *, owners: bool) -> Outcome:
    """Simulate many sharing groups, whose gradients go to everybody or only to those who need them."""
    total = SHARED_BYTES + N_GROUPS * GROUP_BYTES
    mine = SHARED_BYTES + min(N_GROUPS, -(-1000 // gpus)) * GROUP_BYTES
    job = Job((gpu_dataset(1000),) * 1000, DIM, mine if owners else total)
    return simulate(job, plan(job, gpus), LINK, rounds=3)


def _simulated(job: Job, gpus: int) -> Outcome:
    return simulate(job, plan(job, gpus), LINK, rounds=3)


CASE = Scaling()
