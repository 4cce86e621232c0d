"""Plan of an atlas for many actors before anything is there: bytes and seconds of each actor, start-up included.

Bytes are those of the estimates of training. Seconds are of one core and come from single datasets that are prepared
here; with many actors nothing else of a start grows with the atlas but the list of its datasets.

Legend: T datasets, P actors, N genes.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks.clusters import N_COLUMNS, Atlas
from musegnn.cluster.cost import predict_seconds
from musegnn.config import ModelConfig, TrainingConfig
from musegnn.graph import PartnerFile
from musegnn.training import memory
from musegnn.training.discriminant import AXES, ROUNDS
from musegnn.training.memory import DatasetSize
from musegnn.training.partner_files import partner_path, read_partner, write_partner
from musegnn.training.prepare import make_model, prepare, prepare_dataset
from musegnn.units import TRAINING_PROCESS, format_bytes

DENSITY, MOST_ANCHORS = 0.05, 40_000
SEARCHED, PROJECTED = 2 * ROUNDS, 3  # products with the relations of a dataset, in float32 and in float64
TABLES = 4  # of anchor genes by axes at a time


@dataclass(frozen=True, slots=True)
class Start:
    """CPU seconds of one dataset: to prepare it, for its features, and to read what a partner needs of it.

    ``partner_bytes`` is the size of the file of the latter, ``flops`` the rates of products of float32 and float64 on
    one core.
    """

    prepare: float
    features: float
    partner: float
    partner_bytes: int
    flops: tuple[float, float]


def measure_start(n_genes: int) -> Start:
    """Prepare two random datasets in this process and time it."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        store, config = Atlas((n_genes, n_genes), density=DENSITY, encoder="none").make(Path(name))
        began = time.process_time()
        found = prepare_dataset(store, config, config.datasets[0], None)
        path = partner_path(Path(name), found.graph.name, found.digest)
        write_partner(path, found.graph)
        prepared = time.process_time() - began
        data = prepare(store, config)
        began = time.process_time()
        make_model(data, config)
        features = (time.process_time() - began) / 2
        began = time.process_time()
        labels = {label: getattr(found.graph, label) for label in ("name", "modality", "tissue", "species")}
        read_partner(PartnerFile(**labels, n_genes=n_genes, path=path))
        partner, size = time.process_time() - began, path.stat().st_size
    return Start(prepared, features, partner, size, (_flops(np.float32), _flops(np.float64)))


def _flops(kind: type[np.floating]) -> float:
    """Return the operations per second of a product, on one core."""
    a, b = np.ones((1000, 2000), dtype=kind), np.ones((2000, AXES), dtype=kind)
    with threadpool_limits(1, "blas"):
        a @ b
        began = time.process_time()
        for _ in range(5):
            a @ b
    return 5 * 2.0 * 1000 * 2000 * AXES / (time.process_time() - began)


def plan(n_datasets: int, n_genes: int, n_actors: int, start: Start, *, rounds: int) -> dict[str, str]:
    """Return the plan for the actor with most datasets as text by name."""
    model = ModelConfig(encoder="transformer" if rounds else "none")
    training = TrainingConfig(rounds=rounds, recompute=True)
    edges = int(DENSITY * n_genes**2)
    size = DatasetSize(
        key="scrna", n_genes=n_genes, n_pairs=2 * edges, n_edges=edges, n_profile=N_COLUMNS, n_related=n_genes
    )
    owned = math.ceil(n_datasets / n_actors)
    one = memory.dataset_memory(size, model, training, n_anchors=MOST_ANCHORS)
    shared = (memory.COPIES if rounds else memory.COPIES_AT_REST) * memory.shared_bytes([size], model, MOST_ANCHORS)
    kept = memory.overlap_bytes([size] * n_datasets)
    others = one.everywhere * (n_datasets - owned)
    tables = TABLES * 8 * 2 * MOST_ANCHORS * AXES
    total = TRAINING_PROCESS + owned * one.held + others + kept + shared + max(one.step, tables)
    product = 2.0 * n_genes * 2 * n_genes * AXES  # of the relations of one dataset with all axes
    search = product * (SEARCHED / start.flops[0] + PROJECTED / start.flops[1])
    seconds = predict_seconds(size, model, training)
    return {
        "datasets, genes, actors": f"{n_datasets:,}, {n_genes:,}, {n_actors}",
        "datasets of one actor": f"{owned}",
        "bytes of one of its datasets": format_bytes(one.held),
        "bytes of all datasets of others": format_bytes(others),
        "overlaps kept, at most": format_bytes(kept),
        "shared modules": format_bytes(shared),
        "largest step of a dataset": format_bytes(one.step),
        "tables of all anchor genes, closed form": format_bytes(tables),
        "bytes of an actor": format_bytes(total),
        "start: prepare own datasets": f"{owned * start.prepare:.0f} s",
        "start: their features": f"{owned * start.features:.0f} s",
        "start: shared map in closed form": f"{owned * search:.0f} s",
        "start: files of partners": f"{format_bytes(n_datasets * start.partner_bytes)} on disk, written once",
        "round: read partners": f"{owned * start.partner:.1f} s" if rounds else "none",
        "round: compute": f"{owned * seconds:.0f} s" if rounds else "none",
    }


def main(n_datasets: int = 10_000, n_genes: int = 5000, n_actors: int = 256) -> None:
    """Print the plans without and with rounds as a table."""
    start = measure_start(n_genes)
    plans = [plan(n_datasets, n_genes, n_actors, start, rounds=rounds) for rounds in (0, 100)]
    print("| simulated: one actor of one core | closed form | 100 rounds |\n|---|---|---|")
    for name in plans[0]:
        print(f"| {name} | {plans[0][name]} | {plans[1][name]} |")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
