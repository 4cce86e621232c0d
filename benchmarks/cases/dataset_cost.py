"""Seconds per round of datasets of many shapes, and the coefficients from which plans predict them.

Two datasets of each shape are trained in one process with one thread; all stages of a dataset count, and its part of
what is done once per round. Predictions are made by coefficients that were fitted to all other shapes. The coefficients
fitted to all are the defaults of ``cluster/cost.py``.
"""

from __future__ import annotations

import time
from dataclasses import fields
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from benchmarks.registry import Check, Measurement
from benchmarks.stages import STAGES, train_and_time
from benchmarks.training import Workload
from musegnn.cluster.cost import Coefficients, Work, fit, work_of
from musegnn.training.memory import size_of

if TYPE_CHECKING:
    from collections.abc import Iterator

DATASETS = 2
ROUNDS = 3


class Shape(NamedTuple):
    """A dataset: genes, columns of the profile, density."""

    n_genes: int
    n_columns: int
    density: float

    def __str__(self) -> str:
        """Name it in a table."""
        return f"N={self.n_genes} M={self.n_columns} {self.density:.0%}"


QUICK = (
    Shape(200, 100, 0.05),
    Shape(200, 400, 0.2),
    Shape(400, 100, 0.2),
    Shape(400, 400, 0.05),
    Shape(600, 100, 0.05),
    Shape(600, 200, 0.2),
)
FULL = (
    Shape(300, 200, 0.05),
    Shape(300, 1000, 0.3),
    Shape(600, 200, 0.2),
    Shape(600, 1000, 0.02),
    Shape(1000, 500, 0.05),
    Shape(1000, 200, 0.2),
    Shape(1000, 1000, 0.02),
    Shape(1500, 500, 0.1),
    Shape(1500, 200, 0.02),
    Shape(2000, 300, 0.02),
)
LARGE = (Shape(3000, 300, 0.02), Shape(4000, 500, 0.05))
DECODERS = {
    "mlp": (FULL, {}),
    "inner": (FULL + LARGE, {}),
    "signed": (FULL + LARGE, {}),
    "pairwise": (FULL + LARGE, {"pairs": 50_000}),
}


class DatasetCost:
    """Random graphs."""

    name = "dataset_cost"

    def gate(self, *, quick: bool) -> Iterator[Check]:
        """Fit seconds that known coefficients give."""
        known = Coefficients(2e-9, 3e-11, 4e-11, 5e-9, 0.01)
        work = [_work(shape, "mlp") for shape in (QUICK if quick else FULL)]
        found = fit(work, [known.seconds(w) for w in work])
        error = max(abs(getattr(found, f.name) / getattr(known, f.name) - 1.0) for f in fields(Coefficients))
        yield Check(claim="known coefficients are found within 1e-6", holds=error <= 1e-6, got=f"{error:.1e}")

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Time, predict and fit, one decoder after the other."""
        torch.set_num_threads(1)
        for decoder, (shapes, _) in DECODERS.items():
            yield from _fitted(decoder, QUICK if quick else shapes)


def _fitted(decoder: str, shapes: tuple[Shape, ...]) -> Iterator[Measurement]:
    work = [_work(shape, decoder) for shape in shapes]
    seconds = [_seconds(shape, decoder) for shape in shapes]
    errors = []
    for k, shape in enumerate(shapes):
        others = fit(work[:k] + work[k + 1 :], seconds[:k] + seconds[k + 1 :])
        guess = others.seconds(work[k])
        errors.append(abs(guess / seconds[k] - 1.0))
        yield Measurement(
            shape=str(shape),
            metric=f"cpu_time per dataset: {decoder}",
            value=seconds[k],
            unit="s",
            baseline="prediction from other shapes",
            baseline_value=guess,
        )
    about = f"{len(shapes)} shapes"
    yield Measurement(shape=about, metric=f"median error: {decoder}", value=float(np.median(errors)), unit="")
    yield Measurement(shape=about, metric=f"largest error: {decoder}", value=max(errors), unit="")
    found = fit(work, seconds)
    for field in fields(Coefficients):
        value = getattr(found, field.name)
        yield Measurement(shape=about, metric=f"coefficient {field.name}: {decoder}", value=value, unit="s")


def _settings(shape: Shape, decoder: str) -> tuple[Workload, dict[str, object], dict[str, object]]:
    work = Workload(DATASETS, shape.n_genes, shape.n_columns, shape.density)
    training = DECODERS[decoder][1] | {"loss": {"alignment": 1.0}}
    return work, {"decoder": decoder, "edge_features": True}, training


def _work(shape: Shape, decoder: str) -> Work:
    work, model, training = _settings(shape, decoder)
    engine = work.engine(model, training)
    size = size_of(work.graphs[0], engine.model.config, shape.n_columns, [])
    return work_of(size, engine.model.config, engine.config)


def _seconds(shape: Shape, decoder: str) -> float:
    work, model, training = _settings(shape, decoder)
    watch = train_and_time(lambda phases: work.engine(model, training, phases=phases), ROUNDS, clock=time.process_time)
    own = sum(watch.median(stage, graph.name) for stage in STAGES for graph in work.graphs)
    return (own + watch.median("reduce") + watch.median("step")) / DATASETS


CASE = DatasetCost()
