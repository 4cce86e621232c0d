"""How training would scale: a simulation, held against runs on 1 and 2 actors of this machine.

Times of single datasets are measured here in one process. The table of ``benchmarks/reports/scaling.md`` is simulated:
8 to 1024 cores from these times and *assumed* links, as many GPUs from assumed times.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.clusters import Atlas, train
from benchmarks.registry import Check, Measurement
from benchmarks.scaling.gpu import LINKS, MODELS
from benchmarks.scaling.report import CORES, Point, write_report
from benchmarks.scaling.simulate import FREE, Dataset, Job, Link, explain, place, simulate
from benchmarks.stages import STAGES, train_and_time

if TYPE_CHECKING:
    from collections.abc import Iterator

    from musegnn.config import AtlasConfig
    from musegnn.data_store import Store

REPORT = Path(__file__).resolve().parents[1] / "reports" / "scaling.md"
SIZES = ((1000,) * 8, (400, 600, 800, 1000, 1000, 1200, 1400, 1600))
MEASURED = tuple(Atlas(sizes, encoder=encoder) for sizes in SIZES for encoder in ("none", "transformer"))
QUICK = Atlas((200,) * 4, rounds=8, checkpoint_every=2, encoder="none")
WITHIN = 0.20
LOOPBACK = Link(latency=3e-4, bandwidth=1e9)
GPUS, COUNTS, N_GENES = (8, 16, 32, 64, 128, 256, 512, 1024), (82, 1000, 10_000), (1000, 5000, 20_000)


class Scaling:
    """Random datasets on this machine; assumed ones on GPUs."""

    name = "scaling"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Solve two cases by hand."""
        one = Dataset(1000, 0.1, 0.4, 0.1, 0.2, 0.05)
        for n, expected in ((1, 8 * one.seconds), (4, 2 * one.seconds)):
            found = simulate(Job((one,) * 8), [k % n for k in range(8)], FREE)
            claim = f"8 equal datasets on {n} workers without a network take {expected:.2f} s"
            yield Check(claim=claim, holds=abs(found - expected) < 1e-9, got=f"{found:.4f} s")

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Predict rounds on this machine and train them; then simulate GPUs."""
        from musegnn.cluster.ray_session import ray_session

        jobs: list[Job] = []
        with ray_session(None, cpus=8):
            for atlas in (QUICK,) if quick else MEASURED:
                yield from _validate(atlas, jobs, goals=not quick)
        points = [*_points(quick=quick), *_points_of_cores(jobs[0], quick=quick)]
        for p in points:
            yield Measurement(shape=f"simulated: {p}", metric="round, fast links", value=p.seconds, unit="s")
            for kind, shares in (("fast", p.fast), ("slow", p.slow)):
                metric = f"efficiency, {kind} links; limit: {shares.limit}"
                yield Measurement(shape=f"simulated: {p}", metric=metric, value=shares.efficiency, unit="")
        if not quick:
            write_report(REPORT, points)


def _validate(atlas: Atlas, jobs: list[Job], *, goals: bool) -> Iterator[Measurement]:
    with tempfile.TemporaryDirectory() as name:
        store, config = atlas.make(Path(name))
        job = _job(store, config, atlas)
        jobs.append(job)
        for n in (1, 2):
            owner = place(job, n)
            predicted = simulate(job, owner, LOOPBACK)
            run = train(Path(name) / f"run{n}", store, config, actors=n, owner=owner)
            seconds = statistics.median(run.round_seconds(atlas.checkpoint_every))
            shape, error = f"{atlas} P={n}", abs(predicted / seconds - 1.0)
            yield Measurement(shape=shape, metric="round, predicted", value=predicted, unit="s")
            yield Measurement(shape=shape, metric="round, measured", value=seconds, unit="s")
            goal = ("value", "<=", WITHIN) if goals else None
            yield Measurement(shape=shape, metric="error of the prediction", value=error, unit="", goal=goal)


def _job(store: Store, config: AtlasConfig, atlas: Atlas) -> Job:
    """Time each stage of each dataset in one process; what is done once per round is shared out equally."""
    from musegnn.training.engine import Engine
    from musegnn.training.prepare import make_model, prepare

    torch.set_num_threads(1)
    data = prepare(store, config)
    model = make_model(data, config)
    watch = train_and_time(
        lambda phases: Engine(model, config.training, phases=phases), atlas.rounds // 2, clock=time.perf_counter
    )
    rest = (watch.median("reduce") + watch.median("step")) / len(data.graphs)
    found = [Dataset(g.n_genes, *(watch.median(stage, g.name) for stage in STAGES), step=rest) for g in data.graphs]
    shared = sum(p.numel() for module in model.shared.by_unit.values() for p in module.parameters())
    return Job(tuple(found), config.model.dim, 8.0 * shared)


def _points(*, quick: bool) -> Iterator[Point]:
    """Simulate datasets of a quarter of the stated number of genes to that number."""
    n_genes, counts = (N_GENES[:2], COUNTS[:1]) if quick else (N_GENES, COUNTS)
    for name, count, largest, gpus in itertools.product(MODELS, counts, n_genes, GPUS):
        if largest <= MODELS[name].largest:
            job = MODELS[name].job([largest - (3 * largest * k) // (4 * count) for k in range(count)])
            yield _point(name, job, largest, gpus)


def _points_of_cores(job: Job, *, quick: bool) -> Iterator[Point]:
    """Simulate cores of this machine instead: datasets with the times that were measured here, over assumed links."""
    for count, cores in itertools.product(COUNTS[:1] if quick else COUNTS, GPUS):
        datasets = tuple(job.datasets[k % len(job.datasets)] for k in range(count))
        yield _point(CORES, replace(job, datasets=datasets), max(d.n_genes for d in datasets), cores)


def _point(name: str, job: Job, largest: int, workers: int) -> Point:
    fast, slow = (explain(job, link, workers) for link, _ in LINKS.values())
    seconds = sum(d.seconds for d in job.datasets) / workers / fast.efficiency
    return Point(name, len(job.datasets), largest, workers, seconds, fast, slow)


CASE = Scaling()
