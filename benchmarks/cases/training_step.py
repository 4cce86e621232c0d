"""Rounds of training against the published loop: equal losses, CPU time, peak memory; and how large a graph may be.

An epoch (a round of ours) makes every dataset once the subject. All is measured with one thread. Rows called "mlp"
compare the published architecture in both: node features are the profile, no edge features, the decoder of three N x N
layers, dense (N, N) cross-entropy of all entries, similarity and contrast; no alignment loss. "sequential" takes the
published step order, too; the others our own ("parallel"). Rows called "pairwise" change the decoder, as recommended
for large graphs, and decode drawn pairs only.

Memory is the largest resident set of a fresh process: all of it, libraries included, and what it has above the state in
which both have loaded torch and made the same data.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.registry import Check, Measurement
from benchmarks.training import Workload, copy_weights, published_epoch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-5
QUICK, FULL = Workload(2, 300, 100, 0.05), Workload(4, 1000, 500, 0.05)
PUBLISHED = {"published": {"sequential": True, "false_negatives": True, "diagonal": True}}
PAIRWISE = {"decoder": "pairwise"}, {"pairs": 50_000}
EDGES = {"edge_features": True}
OURS: dict[str, tuple[dict[str, Any], dict[str, Any], float | None]] = {
    "mlp": ({}, {}, 10.0),
    "mlp, sequential": ({}, PUBLISHED, None),
    "mlp, edge features": (EDGES, {}, None),
    "mlp, row blocks": ({}, {"row_block": 250}, None),
    "pairwise": (*PAIRWISE, 25.0),
    "pairwise, edge features": (PAIRWISE[0] | EDGES, PAIRWISE[1], None),
}
LARGE = (
    ("mlp, row blocks", Workload(4, 5000, 500, 0.05), {}, {"row_block": 512}),
    ("pairwise", Workload(2, 20_000, 500, 0.05), *PAIRWISE),
)
LARGE_BYTES = 8e9


class TrainingStep:
    """Random graphs; two datasets share half of their genes."""

    name = "training_step"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Compare the losses of the first epoch in sequential order, from the same weights and with the same draws."""
        torch.set_num_threads(1)
        work = QUICK if quick else FULL
        engine, loop = work.engine({}, PUBLISHED), work.published()
        copy_weights(engine, loop)
        rows, published = engine.round(1), published_epoch(engine, loop, 1)
        names = ("reconstruction", "similarity", "contrast")
        for k, name in enumerate(names):
            difference = max(abs(row[name] - losses[k]) for row, losses in zip(rows, published, strict=True))
            yield Check(
                claim=f"{work}: {name} of every step = published within {TOLERANCE:g}",
                holds=difference <= TOLERANCE,
                got=f"{difference:.1e}",
            )

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Time epochs in turns; weigh fresh processes."""
        torch.set_num_threads(1)
        work = QUICK if quick else FULL
        yield from _times(work, rounds=3, goals=not quick)
        yield from _memory(work, goals=not quick)
        if not quick:
            yield from _large()


def _times(work: Workload, *, rounds: int, goals: bool) -> Iterator[Measurement]:
    loop = work.published()
    steps: dict[str, Callable[[int], object]] = {"published": lambda _: loop.epoch()}
    steps |= {name: work.engine(model, training).round for name, (model, training, _) in OURS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(1, rounds + 2):
        for name, step in steps.items():
            start = time.process_time()
            step(round_)
            if round_ > 1:
                seconds[name].append(time.process_time() - start)
    for name, (_, _, goal) in OURS.items():
        yield Measurement(
            shape=str(work),
            metric=f"cpu_time per epoch: {name}",
            value=statistics.median(seconds[name]),
            unit="s",
            baseline="published loop",
            baseline_value=statistics.median(seconds["published"]),
            goal=("ratio", ">=", goal) if goals and goal is not None else None,
        )


def _memory(work: Workload, *, goals: bool) -> Iterator[Measurement]:
    baseline = _probe(work, rounds=2, published=True)
    for name in ("mlp", "pairwise"):
        model, training, _ = OURS[name]
        found = _probe(work, rounds=2, model=model, training=training)
        yield _estimate(work, name, found)
        whole = [process["peak"] / 1e6 for process in (found, baseline)]
        above = [(process["peak"] - process["start"]) / 1e6 for process in (found, baseline)]
        for metric, (ours, theirs) in (("peak_memory", whole), ("peak_memory above the data", above)):
            yield Measurement(
                shape=str(work),
                metric=f"{metric}: {name}",
                value=ours,
                unit="MB",
                baseline="published loop",
                baseline_value=theirs,
                goal=("ratio", ">=", 4.0) if goals and name == "mlp" else None,
            )


def _large() -> Iterator[Measurement]:
    for name, work, model, training in LARGE:
        found = _probe(work, rounds=3, model=model, training=training)
        yield _estimate(work, name, found)
        bound = ("value", "<=", LARGE_BYTES / 1e9)
        yield Measurement(
            shape=str(work), metric=f"peak_memory: {name}", value=found["peak"] / 1e9, unit="GB", goal=bound
        )
        yield Measurement(
            shape=str(work), metric=f"cpu_time per epoch: {name}", value=statistics.median(found["cpu"][1:]), unit="s"
        )


def _estimate(work: Workload, name: str, found: dict[str, Any]) -> Measurement:  # JSON
    ratio = found["estimate"] / found["peak"]
    return Measurement(shape=str(work), metric=f"estimated over measured peak: {name}", value=ratio, unit="")


def _probe(work: Workload, **settings: Any) -> dict[str, Any]:  # JSON
    size = {"n_datasets": work.n_datasets, "n_genes": work.n_genes, "n_cells": work.n_cells, "density": work.density}
    command = [sys.executable, "-m", "benchmarks.probes.training", json.dumps({"workload": size} | settings)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


CASE = TrainingStep()
