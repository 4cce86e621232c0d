"""``python -m benchmarks.gpu_training [--quick] [--dry-run] [--plan] [--results FOLDER]``: training on GPUs.

Needs torch, Triton, numpy, scipy, numba, PyYAML and pydantic, but neither Ray nor zarr. Losses are compared with those
of the CPU; then rounds of 8 and of 82 random datasets of 1000 genes are timed and weighed, with the published
architecture, with the default model and with its transformer; then the same rounds on all GPUs of the machine, by NCCL.
Weights are random: the closed forms, which run on the CPU, are left out. Frame, times and failures are those of
:mod:`benchmarks.gpu_sections`; rows are appended to ``results/gpu-training.csv``.

``--dry-run`` goes through all of it on the CPU, with tiny datasets and two processes on gloo. No GPU has run this yet.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.gpu_sections import CheckItem, Item, Program, Section, main
from benchmarks.graphs import random_graphs, random_profile
from benchmarks.registry import Check, Measurement
from musegnn.config import PUBLISHED, ModelConfig, TrainingConfig
from musegnn.model.features import NodeFeatures
from musegnn.model.model import AtlasModel
from musegnn.model.relational_features import Relations, anchor_genes
from musegnn.random import stream
from musegnn.training.engine import Engine
from musegnn.training.torch_comm import TorchComm, find_members, make_group, rendezvous

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.gpu_sections import Setting
    from musegnn.graph import GraphData
    from musegnn.training.comm import Comm

COLUMNS, DENSITY = 500, 0.05
MODELS: dict[str, dict[str, Any]] = {
    "published": PUBLISHED["model"] | {"share_by": ["modality"]},
    "default": {},
    "transformer": {"encoder": "transformer"},
}
LOSSES = {"published": {"reconstruction": 1.0, "alignment": 0.0}}
TOLERANCE = 1e-3


def make_engine(
    graphs: Sequence[GraphData],
    model: str,
    device: torch.device,
    *,
    owned: Sequence[int] | None = None,
    comm: Comm | None = None,
) -> Engine:
    """Make an engine with random profiles and relations for the datasets that a process owns, by default all."""
    config = ModelConfig.model_validate(MODELS[model])
    training = TrainingConfig.model_validate({"rounds": 100, "threads": 1, "loss": LOSSES.get(model, {})})
    anchors = anchor_genes([g.keys[g.trainable] for g in graphs]) if config.has_maps else []
    features = {}
    for i in range(len(graphs)) if owned is None else owned:
        graph, columns = graphs[i], min(COLUMNS, graphs[i].n_genes)
        features[i] = NodeFeatures(
            profile=random_profile(graph.name, graph.n_genes, columns),
            related=_random_relations(graph, anchors) if config.has_maps else None,
            n_cells=columns,
            dtype=torch.float32,
            device=device,
        )
    known = [graph if i in features else graph.as_partner() for i, graph in enumerate(graphs)]
    atlas = AtlasModel(known, features, config, n_anchors=len(anchors), seed=0, dtype=torch.float32, device=device)
    return Engine(atlas, training, comm=comm)


def _random_relations(graph: GraphData, anchors: Sequence[str]) -> Relations:
    place = {key: k for k, key in enumerate(anchors)}
    genes = np.array([row for row, key in enumerate(graph.keys.tolist()) if key in place], dtype=np.int64)
    at = np.array([place[key] for key in graph.keys[genes].tolist()], dtype=np.int64)
    genes, at = genes[np.argsort(at)], np.sort(at)
    values = stream(0, "bench_relations", graph.name).standard_normal((graph.n_genes, 2 * len(at)), dtype=np.float32)
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)
    return Relations(values=values, columns=np.concatenate([at, len(anchors) + at]), genes=genes)


def shapes(setting: Setting) -> tuple[int, tuple[int, ...]]:
    """Return the genes of a dataset, and numbers of datasets."""
    return (40, (3,)) if setting.dry else (1000, (8,) if setting.quick else (8, 82))


def checks(setting: Setting) -> Iterator[CheckItem]:
    """List the comparisons with the CPU, one per model."""
    for model in MODELS:
        yield CheckItem(model, partial(_compare, model, setting))


def _compare(model: str, setting: Setting) -> Check:
    n_genes, _ = shapes(setting)
    graphs = random_graphs(2, n_genes, DENSITY, n_pool=2 * n_genes)
    losses = []
    for device in (torch.device("cpu"), setting.device):
        engine = make_engine(graphs, model, device)
        losses.append([row["loss"] for number in (1, 2) for row in engine.round(number)])
    error = float(np.abs(np.array(losses[1]) / np.array(losses[0]) - 1.0).max())
    claim = f"{model}: losses of two rounds = those of the CPU within {TOLERANCE:g}"
    return Check(claim=claim, holds=error <= TOLERANCE, got=f"{error:.1e}")


def round_items(setting: Setting) -> Iterator[Item]:
    """List rounds of few datasets, then of many."""
    n_genes, counts = shapes(setting)
    for count in counts:
        for model in MODELS:
            if model not in setting.wrong:
                yield Item(f"T={count} N={n_genes} {model}", partial(_measure_rounds, count, n_genes, model, setting))


def _measure_rounds(count: int, n_genes: int, model: str, setting: Setting) -> Iterator[Measurement]:
    graphs = random_graphs(count, n_genes, DENSITY, n_pool=2 * n_genes)
    engine = make_engine(graphs, model, setting.device)
    if setting.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(setting.device)
    seconds = _round_seconds(engine, setting.device, rounds=1 if setting.dry else 5)
    shape = f"T={count} N={n_genes} {DENSITY:.0%} {model}"
    yield Measurement(shape=shape, metric="round", value=seconds * 1e3, unit="ms")
    yield Measurement(shape=shape, metric="step of a dataset", value=seconds * 1e3 / count, unit="ms")
    if setting.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(setting.device)
        yield Measurement(shape=shape, metric="gpu_peak", value=peak / 1e6, unit="MB")


def _round_seconds(engine: Engine, device: torch.device, *, rounds: int) -> float:
    """Return the median seconds of a round, after one that compiles and loads."""
    seconds = []
    for number in range(1, rounds + 2):
        _synchronize(device)
        began = time.perf_counter()
        engine.round(number)
        _synchronize(device)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def group_items(setting: Setting) -> Iterator[Item]:
    """List rounds on all GPUs of this machine, where there are several."""
    n_genes, counts = shapes(setting)
    size = 2 if setting.dry else torch.cuda.device_count()
    if size < 2:
        print("  skipped: this machine has one GPU")
        return
    for count in counts:
        for model in ("default", "transformer"):
            if model not in setting.wrong:
                name = f"T={count} N={n_genes} {model} on {size} processes"
                yield Item(name, partial(_measure_group, count, n_genes, model, size, setting))


def _measure_group(count: int, n_genes: int, model: str, size: int, setting: Setting) -> Iterator[Measurement]:
    with tempfile.TemporaryDirectory() as folder, rendezvous("127.0.0.1") as (host, port):
        path = Path(folder) / "seconds.json"
        arguments = ((host, port), size, count, n_genes, model, setting.device.type, str(path))
        torch.multiprocessing.spawn(_train_as_rank, arguments, nprocs=size)
        seconds = json.loads(path.read_text())
    shape = f"T={count} N={n_genes} {DENSITY:.0%} {model}"
    yield Measurement(shape=shape, metric=f"round on {size} processes", value=seconds * 1e3, unit="ms")


def _train_as_rank(
    rank: int, address: tuple[str, int], size: int, count: int, n_genes: int, model: str, kind: str, path: str
) -> None:
    device = torch.device(kind, rank) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(device)
    graphs = random_graphs(count, n_genes, DENSITY, n_pool=2 * n_genes)
    owner = [i % size for i in range(count)]
    group = make_group(find_members(*address, "benchmark"), rank, size, backend="nccl" if kind == "cuda" else "gloo")
    dim = ModelConfig.model_validate(MODELS[model]).dim
    comm = TorchComm(group, owner, [graph.n_genes for graph in graphs], dim, device=device)
    owned = [i for i, other in enumerate(owner) if other == rank]
    seconds = _round_seconds(
        make_engine(graphs, model, device, owned=owned, comm=comm), device, rounds=5 if kind == "cuda" else 1
    )
    if rank == 0:
        Path(path).write_text(json.dumps(seconds))
    group.barrier().wait()


PROGRAM = Program(
    module="benchmarks.gpu_training",
    case="gpu-training",
    needs=(
        "torch", "triton", "numpy", "scipy", "numba", "yaml",
        "pydantic", "pydantic_core", "annotated_types", "typing_inspection",
    ),
    check_seconds=90,
    checks=checks,
    sections={"rounds": Section(240, round_items), "several GPUs": Section(120, group_items)},
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(main(PROGRAM, __doc__))
