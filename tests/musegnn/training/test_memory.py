"""The memory estimate against what models hold and what processes take."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
import torch

from benchmarks.clusters import Atlas
from benchmarks.training import Workload
from musegnn.api import MuSeGNN
from musegnn.config import ModelConfig, TrainingConfig
from musegnn.errors import RunError
from musegnn.run_folder import RunFolder
from musegnn.training.memory import (
    DatasetSize,
    check_memory,
    dataset_sizes,
    encoder_bytes,
    estimate_memory,
    fitting_at_a_time,
    shared_bytes,
    weight_bytes,
)
from musegnn.training.prepare import make_model, prepare
from musegnn.units import megabytes

PLENTY = 10**15


def counted_weights(data, model):
    sizes = dataset_sizes(data, model)
    return shared_bytes(sizes, model, len(data.anchors)) + sum(sum(weight_bytes(size, model)) for size in sizes)


def held_weights(data, config):
    units = make_model(data, config).units.values()
    return sum(p.numel() * p.element_size() for unit in units for p in unit.parameters())


def total(data, model, training):
    return sum(check_memory(data, model, training, PLENTY).values())


@pytest.mark.parametrize("embedding", ["maps", "layers"])
@pytest.mark.parametrize("decoder", ["mlp", "inner", "pairwise"])
def test_parameters_are_counted_exactly(atlas, embedding, decoder):
    store, config = atlas(model__embedding=embedding, model__decoder=decoder)
    data = prepare(store, config)
    assert counted_weights(data, config.model) == held_weights(data, config)


@pytest.mark.parametrize("encoder", ["none", "transformer"])
def test_parameters_of_all_encoders_are_counted_exactly(atlas, encoder):
    store, config = atlas(model__encoder=encoder)
    data = prepare(store, config)
    assert counted_weights(data, config.model) == held_weights(data, config)


def test_a_training_that_does_not_fit_stops_and_names_what_does(atlas):
    size = size_with(20_000, 4_000_000)
    training = TrainingConfig(rounds=1)
    whole = sum(estimate_memory([size], ModelConfig(decoder="mlp"), training, n_anchors=0).values())
    assert whole > 16 * 3 * 20_000**2  # weights, moments and gradients of three layers
    store, config = atlas(4, model__decoder="mlp", training__loss={"alignment": 1.0})
    data = prepare(store, config)
    needed = total(data, config.model, config.training)
    assert sum(check_memory(data, config.model, config.training, needed).values()) == needed
    with pytest.raises(RunError, match=r"E411.*training needs about.*--memory") as caught:
        check_memory(data, config.model, config.training, needed - 1)
    found = re.search(r"or set (\S+) \((\d+)MB", caught.value.fix)
    assert found is not None
    name, value = found[1].split("=")
    changed = config.training.model_dump() | {name.removeprefix("training."): {"true": True}.get(value, value)}
    smaller = total(data, config.model, TrainingConfig.model_validate(changed))
    assert smaller < needed
    assert megabytes(smaller) == f"{found[2]}MB"
    with pytest.raises(RunError, match="no setting of decoder, row blocks and recomputation fits"):
        check_memory(data, config.model, config.training, 10**6)
    with pytest.raises(RunError, match="E411"):
        MuSeGNN(store, config, memory=10**6)


def test_as_many_datasets_are_computed_at_a_time_as_cores_and_bytes_allow(atlas, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)))
    store, config = atlas(4, training__threads=1)
    data = prepare(store, config)
    one, n_anchors = total(data, config.model, config.training), len(data.anchors)
    sizes = dataset_sizes(data, config.model)
    three = sum(estimate_memory(sizes, config.model, config.training, n_anchors=n_anchors, at_a_time=3).values())
    assert one < three

    def fitting(budget, threads=1):
        training = config.training.model_copy(update={"threads": threads})
        return fitting_at_a_time(data, config.model, training, budget)

    assert [fitting(budget) for budget in (None, PLENTY, three, three - 1, one)] == [4, 4, 3, 2, 1]
    assert [fitting(None, threads) for threads in (2, 3, 4, 8)] == [3, 2, 1, 1]


def size_with(n_genes, n_edges):
    return DatasetSize(key="scrna", n_genes=n_genes, n_pairs=0, n_edges=n_edges, n_profile=500, n_related=0)


NO_PAIRS = {"loss": {"alignment": 0.0}}


@pytest.mark.parametrize(
    ("before", "model", "after", "less"),
    [
        (NO_PAIRS, {}, NO_PAIRS | {"row_block": 512}, "step"),
        ({}, {"decoder": "pairwise"}, {"pairs": 50_000}, "datasets"),
        ({}, {}, {"recompute": True}, "datasets"),
        (NO_PAIRS, {"decoder": "signed"}, NO_PAIRS | {"pairs": 50_000}, "step"),
    ],
)
def test_settings_save_what_they_are_said_to_save(before, model, after, less):
    sizes = [size_with(6000, 10**6)] * 3
    one, other = (
        estimate_memory(
            sizes,
            ModelConfig.model_validate({"decoder": "mlp"} | kind),
            TrainingConfig.model_validate({"rounds": 1} | part),
            n_anchors=0,
        )
        for kind, part in (({}, before), (model, after))
    )
    assert other[less] < one[less]
    assert sum(other.values()) < sum(one.values())


@pytest.mark.parametrize(
    "model",
    [
        {"encoder": "transformer"},
        {"edge_features": True, "feature_dropout": 0.2},
        {"dim": 64, "head_dim": 16, "heads_dataset": 2},
    ],
)
def test_what_encoders_keep_is_counted(model):
    """Against the storages that autograd saves, the same on every machine."""
    work = Workload(n_datasets=1, n_genes=600, n_cells=50, density=0.1)
    found = work.engine(model, {}).model
    graph, edge_attr = found._edges[0]
    features = found.features(0)
    there = {*graph, edge_attr, features.profile, *(p for p in found.parameters())}
    loaded = {t.untyped_storage().data_ptr() for t in there if t is not None}
    saved: dict[int, torch.Tensor] = {}

    def save(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        save(found.encode(0, round_=1))
    kept = sum(tensor.untyped_storage().nbytes() for place, tensor in saved.items() if place not in loaded)
    assert encoder_bytes(work.size, found.config) == pytest.approx(kept, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "model", "training"),
    [
        ((2, 2500), {}, {}),
        ((2, 2500), {}, {"row_block": 256}),
        ((3, 2000), {"decoder": "pairwise"}, {"pairs": 20_000}),
        ((2, 1500), {"decoder": "signed"}, {}),
        ((2, 1000), {"decoder": "pairwise"}, {}),
    ],
)
def test_peaks_of_processes_are_near_the_estimate(root, size, model, training):
    """Where freed blocks are given back: else glibc keeps many of them, more on some machines than on others."""
    work = {"n_datasets": size[0], "n_genes": size[1], "n_cells": 300, "density": 0.05}
    settings = {"workload": work, "rounds": 2, "model": model, "training": training}
    command = [sys.executable, "-m", "benchmarks.probes.training", json.dumps(settings)]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1048576"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert 0.8 < found["estimate"] / found["peak"] < 1.25


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [0, 2])
@pytest.mark.parametrize("n_genes", [(2500, 2500), (1500,) * 4])
def test_peaks_of_runs_with_maps_are_near_the_estimate(tmp_path, root, rounds, n_genes):
    store, config = Atlas(n_genes, rounds=rounds).make(tmp_path)
    config = config.model_copy(update={"model": ModelConfig()})
    folder = RunFolder.create(tmp_path / "run", config, store=store.path)
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1048576"}
    command = [sys.executable, "-m", "benchmarks.probes.atlas_training", str(folder.path)]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert 0.8 < found["estimate"] / found["peak"] < 1.25, found
