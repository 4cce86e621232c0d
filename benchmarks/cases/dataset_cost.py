"""Seconds per round of datasets of many shapes beside what placements predict.

Two datasets of each shape are trained in one process with one thread; all stages of a dataset count, and its part of
what is done once per round. Only ratios decide a placement: predictions are scaled to the median of each decoder.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from benchmarks.registry import Check, Measurement
from benchmarks.stages import STAGES, train_and_time
from benchmarks.training import Workload
from musegnn.cluster.cost import predict_seconds

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
        """Compare predictions for two sizes."""
        small, large = (_prediction(Shape(n, 100, 0.05), "mlp") for n in (200, 400))
        yield Check(claim="larger datasets cost more", holds=small < large, got=f"{small:.4f} and {large:.4f} s")

    def measure(self, *, quick: bool) -> Iterator[Measurement]:
        """Time and predict, one decoder after the other."""
        torch.set_num_threads(1)
        for decoder, (shapes, _) in DECODERS.items():
            yield from _compared(decoder, QUICK if quick else shapes)


def _compared(decoder: str, shapes: tuple[Shape, ...]) -> Iterator[Measurement]:
    seconds = np.array([_seconds(shape, decoder) for shape in shapes])
    ratios = np.array([_prediction(shape, decoder) for shape in shapes]) / seconds
    relative = ratios / np.median(ratios)
    for shape, spent, ratio in zip(shapes, seconds.tolist(), relative.tolist(), strict=True):
        yield Measurement(
            shape=str(shape),
            metric=f"cpu_time per dataset: {decoder}",
            value=spent,
            unit="s",
            baseline="prediction, scaled",
            baseline_value=spent * ratio,
        )
    errors, about = np.abs(relative - 1.0), f"{len(shapes)} shapes"
    yield Measurement(shape=about, metric=f"median error: {decoder}", value=float(np.median(errors)), unit="")
    yield Measurement(shape=about, metric=f"largest error: {decoder}", value=float(errors.max()), unit="")


def _settings(shape: Shape, decoder: str) -> tuple[Workload, dict[str, object], dict[str, object]]:
    work = Workload(DATASETS, shape.n_genes, shape.n_columns, shape.density)
    training = DECODERS[decoder][1] | {"loss": {"alignment": 1.0}}
    return work, {"decoder": decoder, "edge_features": True}, training


def _prediction(shape: Shape, decoder: str) -> float:
    work, model, training = _settings(shape, decoder)
    engine = work.engine(model, training)
    return predict_seconds(work.size, engine.model.config, engine.config)


def _seconds(shape: Shape, decoder: str) -> float:
    work, model, training = _settings(shape, decoder)
    watch = train_and_time(lambda phases: work.engine(model, training, phases=phases), ROUNDS, clock=time.process_time)
    own = sum(watch.median(stage, graph.name) for stage in STAGES for graph in work.graphs)
    return (own + watch.median("reduce") + watch.median("step")) / DATASETS


CASE = DatasetCost()
