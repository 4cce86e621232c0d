"""Rounds on 1, 2 and 4 Ray actors: seconds by phase, what exactness and watching cost, recovery, memory.

All actors share this machine's cores, so this shows what the engine adds, not how it scales over machines.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.clusters import Atlas, train, units
from benchmarks.registry import Check, Measurement
from musegnn.training.phases import PHASES, WAITS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.clusters import Run
    from musegnn.config import AtlasConfig
    from musegnn.data_store import Store

QUICK, FULL = Atlas((200,) * 4, rounds=8, checkpoint_every=2), Atlas((1000,) * 8)
OVERHEAD_GOAL = 0.03
RECOVERY_GOAL = 3.0


class Cluster:
    """Random datasets of equal size."""

    name = "cluster"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Compare every unit after training in one process and on two actors."""
        from musegnn.api import MuSeGNN

        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            store, config = QUICK.make(folder)
            MuSeGNN(store, config).train(folder / "alone")
            alone, two = units(folder / "alone"), train(folder / "two", store, config, actors=2).units
        equal = sum(alone[unit] == two.get(unit) for unit in alone)
        claim = f"{QUICK}: weights and moments after {QUICK.rounds} rounds on 2 actors = one process, bit for bit"
        yield Check(claim=claim, holds=alone == two, got=f"{equal} of {len(alone)} units equal")

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Train in one process and with actors."""
        from musegnn.api import MuSeGNN
        from musegnn.cluster.ray_session import ray_session

        atlas, counts = (QUICK, (1, 2)) if quick else (FULL, (1, 2, 4))
        skip = atlas.checkpoint_every  # compiles and loads
        with tempfile.TemporaryDirectory() as name, ray_session(None, cpus=8):
            folder = Path(name)
            store, config = atlas.make(folder)
            model = MuSeGNN(store, config).train(folder / "alone")
            alone = {row["round"]: row["seconds"] for row in model.history if row["kind"] == "losses"}
            base = statistics.median(s for r, s in alone.items() if r > skip)
            yield Measurement(shape=str(atlas), metric="round, one process", value=base, unit="s")
            for n in counts:
                found = train(folder / f"run{n}", store, config, actors=n)
                yield from _phases(f"{atlas} P={n}", found, skip, atlas.checkpoint_every, base)
            yield from _overheads(atlas, store, config, base, goals=not quick)
            yield from _recovery(atlas, folder, store, config, goals=not quick)


def _phases(shape: str, run: Run, skip: int, every: int, base: float) -> Iterator[Measurement]:
    seconds = statistics.median(run.round_seconds(skip))
    yield Measurement(shape=shape, metric="round", value=seconds, unit="s", baseline="one process", baseline_value=base)
    rows = run.processes(skip)
    spent = {phase: statistics.fmean(row.get(f"{phase}_seconds", 0.0) / every for row in rows) for phase in PHASES}
    for phase, value in spent.items():
        if phase != "load":
            kind = "wait" if phase in WAITS else "phase"
            yield Measurement(shape=shape, metric=f"{kind}: {phase}", value=value, unit="s per round and actor")
    busy: dict[int, float] = {}
    for row in rows:
        computing = sum(row.get(f"{phase}_seconds", 0.0) for phase in PHASES if phase not in {*WAITS, "load"})
        busy[row["process"]] = busy.get(row["process"], 0.0) + computing
    imbalance = max(busy.values()) / statistics.fmean(busy.values())
    yield Measurement(shape=shape, metric="imbalance", value=imbalance, unit="")
    last = max(row["round"] for row in rows)
    sent = [row["sent_bytes"] / last for row in rows if row["round"] == last]
    yield Measurement(shape=shape, metric="sent", value=statistics.fmean(sent) / 1e6, unit="MB per round and actor")
    peak = max(row["peak_bytes"] for row in rows)
    yield Measurement(shape=shape, metric="peak_memory, largest actor", value=peak / 1e6, unit="MB")


def _overheads(atlas: Atlas, store: Store, config: AtlasConfig, base: float, *, goals: bool) -> Iterator[Measurement]:
    """Time by themselves what one process without fixed point, vote and heartbeat would not do."""
    parts = {"fixed-point sum": _fixed_point_seconds(store, config), "vote": _vote_seconds()}
    parts["heartbeat"] = _heartbeat_seconds() * 4 * base
    for name, value in parts.items():
        yield Measurement(shape=str(atlas), metric=f"overhead: {name}", value=value * 1e3, unit="ms per round")
    share = sum(parts.values()) / base
    goal = ("value", "<=", OVERHEAD_GOAL) if goals else None
    yield Measurement(shape=str(atlas), metric="overhead: all three", value=share, unit="of a round", goal=goal)


def _fixed_point_seconds(store: Store, config: AtlasConfig) -> float:
    """Return how much longer a process that owns all datasets adds up in fixed point than in floating point."""
    from musegnn.training.comm import LocalComm
    from musegnn.training.engine import Engine
    from musegnn.training.prepare import make_model, prepare

    torch.set_num_threads(1)
    data = prepare(store, config)
    engine = Engine(make_model(data, config), config.training)
    kept = []
    reduce = engine.comm.reduce
    engine.comm.reduce = lambda *a: kept.append(a) or reduce(*a)  # type: ignore[method-assign,func-returns-value]
    engine.round(1)
    contributions, members, _ = kept[0]
    ways = [
        lambda: LocalComm().reduce(contributions, members, []),
        lambda: [sum(by_dataset.values()) for by_dataset in contributions.values()],
    ]
    seconds: list[list[float]] = [[], []]
    for _ in range(15):
        for way, spent in zip(ways, seconds, strict=True):
            began = time.perf_counter()
            way()
            spent.append(time.perf_counter() - began)
    fixed, floating = (statistics.median(spent) for spent in seconds)
    return max(0.0, fixed - floating)


def _vote_seconds() -> float:
    """Return the time of a vote between two threads over gloo, with twenty shared units."""
    import threading

    from torch import distributed

    from musegnn.training.torch_comm import TorchComm, make_group

    members = {f"shared/{k}": [0, 1] for k in range(20)}
    store, spent = distributed.HashStore(), [[], []]  # type: ignore[var-annotated]

    def work(rank: int) -> None:
        comm = TorchComm(make_group(store, rank, 2), [0, 1], [1, 1], 1)
        for _ in range(200):
            began = time.perf_counter()
            comm._agree({}, list(members), objects=False)
            spent[rank].append(time.perf_counter() - began)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return float(np.median(spent[0]))


def _heartbeat_seconds() -> float:
    """Return the time of one heartbeat from request to answer, which is more than it costs the actor."""
    import ray

    from musegnn.cluster.actor_pool import ActorPool

    with ActorPool(ray, tempfile.gettempdir()) as pool:
        pool.start_actors(1)
        while not pool.ready:
            pool.poll(0.1)
        handle, spent = pool.ready[0].handle, []
        for _ in range(100):
            began = time.perf_counter()
            ray.get(handle.heartbeat.remote())
            spent.append(time.perf_counter() - began)
    return statistics.median(spent)


def _recovery(atlas: Atlas, folder: Path, store: Store, config: AtlasConfig, *, goals: bool) -> Iterator[Measurement]:
    """Kill one of two actors with a spare ready."""
    from benchmarks.faults import Fault

    fault = Fault(rank=1, phase="backward", round=atlas.checkpoint_every + 2, how="kill")
    run = train(folder / "killed", store, config, actors=2, spares=1, faults=[[fault]])
    whole = run.monitor.recoveries[0]
    again = [row for row in run.processes(0) if row["round"] == 2 * atlas.checkpoint_every]
    load = max(row["load_seconds"] for row in again)
    shape = f"{atlas} P=2, a spare"
    yield Measurement(shape=shape, metric="recovery: noticed to the next round's end", value=whole, unit="s")
    yield Measurement(shape=shape, metric="recovery: of it loading", value=load, unit="s")
    goal = ("value", "<=", RECOVERY_GOAL) if goals else None
    yield Measurement(shape=shape, metric="recovery: beside loading", value=max(0.0, whole - load), unit="s", goal=goal)


CASE = Cluster()
