"""How training would scale: a simulation, held against runs on 1, 2 and 4 actors of this machine.

Times of single datasets are measured here in one process. The table for 8 to 1024 GPUs is simulated from times of GPUs
and links that are *assumed* (``benchmarks/scaling_gpu.py``), which nobody has measured, and from work of the host that
is measured here on a CPU. ``benchmarks/reports/scaling.md`` and its figure are written from it.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.clusters import Atlas, train
from benchmarks.graphs import random_graphs
from benchmarks.registry import Check, Measurement
from benchmarks.scaling import FREE, STAGES, Dataset, Job, Machine, explain, plan, simulate, split
from benchmarks.scaling_gpu import DENSITY, FAST, LARGEST_MLP, PAIRS, SLOW, Host, gpu_job, sizes
from benchmarks.scaling_report import Point, write_report
from benchmarks.stages import train_and_time
from musegnn.config import LossConfig
from musegnn.training.overlap import Overlaps
from musegnn.training.pair_sampling import PairSampler
from musegnn.training.schedule import draw_contrast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from musegnn.config import AtlasConfig
    from musegnn.data_store import Store

REPORT = Path(__file__).resolve().parents[1] / "reports" / "scaling.md"
MEASURED = (Atlas((1000,) * 8), Atlas((400, 600, 800, 1000, 1000, 1200, 1400, 1600)))
QUICK = Atlas((200,) * 4, rounds=8, checkpoint_every=2)
WITHIN = 0.20
LOOPBACK_BANDWIDTH = 1e9
LOOPBACK_LATENCY = 3e-4

ROUNDS = 3  # simulated
GPUS = (8, 16, 32, 64, 128, 256, 512, 1024)
COUNTS = (82, 1000, 10_000)
SIZES = (1000, 5000, 20_000)
N_GROUPS = 60
HOST_SIZES = (1000, 5000, 20_000)
HOST_ROUNDS = 5


class Scaling:
    """Random datasets on this machine; assumed ones on GPUs."""

    name = "scaling"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Solve two cases by hand."""
        one = Dataset(1000, 0.1, 0.4, 0.1, 0.2, 0.05)
        for n, expected in ((1, 8 * one.seconds), (4, 2 * one.seconds)):
            found = simulate(Job((one,) * 8), [k % n for k in range(8)], FREE).seconds
            claim = f"8 equal datasets on {n} workers without a network take {expected:.2f} s"
            yield Check(claim=claim, holds=abs(found - expected) < 1e-9, got=f"{found:.4f} s")

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Predict rounds on this machine and train them; then simulate GPUs."""
        from musegnn.cluster.ray_session import ray_session

        with ray_session(None, cpus=8):
            for atlas in (QUICK,) if quick else MEASURED:
                yield from _validate(atlas, (1, 2) if quick else (1, 2, 4), goals=not quick)
        yield from _gpus(quick=quick)


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
    """Time each stage of each dataset in one process; what is done once per round is shared out equally."""
    from musegnn.training.engine import Engine
    from musegnn.training.prepare import make_model, prepare

    torch.set_num_threads(1)
    data = prepare(store, config)
    watch = train_and_time(
        lambda phases: Engine(make_model(data, config), config.training, phases=phases),
        atlas.rounds // 2,
        clock=time.perf_counter,
    )
    rest = (watch.median("reduce") + watch.median("step")) / len(data.graphs)
    found = [Dataset(g.n_genes, *(watch.median(stage, g.name) for stage in STAGES)) for g in data.graphs]
    return tuple(replace(d, step=d.step + rest) for d in found)


def _shared_bytes(store: Store, config: AtlasConfig) -> float:
    from musegnn.training.prepare import make_model, prepare

    units = make_model(prepare(store, config), config).units.values()
    return 8.0 * sum(p.numel() for unit in units if unit.kind == "shared" for p in unit.parameters)


def _host(n_genes: tuple[int, ...]) -> Host:
    """Measure on this CPU what every device needs done by its host."""
    draws, overlaps = [], []
    for n in n_genes:
        graphs = random_graphs(3, n, DENSITY, n_pool=2 * n)
        found = Overlaps(graphs)
        found.pair(0, 1), found.pair(1, 2)  # prepares each graph, which is done once
        began = time.process_time()
        overlap = found.pair(0, 2)
        overlaps.append(time.process_time() - began)
        sampler = PairSampler(graphs[0], seed=0, n=PAIRS) if n > LARGEST_MLP else None
        spent = []
        for round_ in range(1, HOST_ROUNDS + 1):
            began = time.process_time()
            draw_contrast(0, round_, (graphs[0], graphs[2]), overlap, LossConfig().n_contrast)
            if sampler is not None:
                sampler.draw(round_)
            spent.append(time.process_time() - began)
        draws.append(statistics.median(spent))
    return Host(n_genes, tuple(draws), tuple(overlaps))


def _gpus(*, quick: bool) -> Iterator[Measurement]:
    host = _host(HOST_SIZES[:2] if quick else HOST_SIZES)
    for n, draws, overlap in zip(host.n_genes, host.draws, host.overlap, strict=True):
        shape = f"N={n} {DENSITY:.0%}"
        yield Measurement(shape=shape, metric="host: draws per dataset and round", value=draws, unit="s")
        yield Measurement(shape=shape, metric="host: overlaps of a new pair", value=overlap, unit="s")
    points = []
    for count in COUNTS[:2] if quick else COUNTS:
        for n_genes in SIZES[:2] if quick else SIZES:
            for equal in (True, False):
                for gpus in GPUS:
                    point = _point(count, n_genes, gpus, host, equal=equal)
                    points.append(point)
                    yield from _rows(point)
    groups = []
    for gpus in GPUS:
        flat, owned = (_grouped(gpus, host, owners=owners) for owners in (False, True))
        groups.append((gpus, flat, owned))
        shape = f"simulated: T=1000 N=1000 equal, {N_GROUPS} groups P={gpus}"
        yield Measurement(shape=shape, metric="round, slow links", value=flat, unit="s")
        yield Measurement(shape=shape, metric="round with owner-reduce, slow links", value=owned, unit="s")
    if not quick:
        write_report(REPORT, points, groups, host)


def _point(count: int, n_genes: int, gpus: int, host: Host, *, equal: bool) -> Point:
    job = gpu_job(sizes(count, n_genes, equal=equal), gpus, host)
    owner = plan(job, gpus)
    fast = explain(job, owner, FAST, gpus, rounds=ROUNDS)
    slow = explain(job, owner, SLOW, gpus, rounds=ROUNDS)
    teams = split(job, gpus, FAST)
    seconds = simulate(teams, plan(teams, gpus), FAST, rounds=ROUNDS).seconds
    work = sum(d.seconds for d in job.datasets)
    return Point(count, n_genes, equal, gpus, work / gpus / fast.efficiency, fast, slow, work / gpus / seconds)


def _rows(point: Point) -> Iterator[Measurement]:
    shape = f"simulated: {point}"
    yield Measurement(shape=shape, metric="round, fast links", value=point.seconds, unit="s")
    value, limit = point.fast.efficiency, point.limit(point.fast)
    yield Measurement(shape=shape, metric=f"efficiency, fast links; limit: {limit}", value=value, unit="")
    value, limit = point.slow.efficiency, point.limit(point.slow)
    yield Measurement(shape=shape, metric=f"efficiency, slow links; limit: {limit}", value=value, unit="")
    yield Measurement(shape=shape, metric="efficiency with teams, fast links", value=point.teams, unit="")


def _grouped(gpus: int, host: Host, *, owners: bool) -> float:
    """Simulate many sharing groups, whose gradients all add up or only a home worker does."""
    job = gpu_job([1000] * 1000, gpus, host, groups=N_GROUPS, owners=owners)
    return simulate(job, plan(job, gpus), SLOW, rounds=ROUNDS).seconds


CASE = Scaling()
