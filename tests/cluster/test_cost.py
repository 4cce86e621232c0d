"""What datasets are predicted to cost, and what is learnt from measurements."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from musegnn.cluster.cost import Coefficients, DatasetCost, Work, dataset_costs, fit, measured, work_of
from musegnn.cluster.room import BASE, Room
from musegnn.config import ModelConfig, TrainingConfig
from musegnn.training.memory import DatasetSize, check_memory, count_bytes, estimate_memory, size_of
from musegnn.training.prepare import prepare

SIZE = DatasetSize(key="scrna", n_genes=300, n_entries=4000, n_profile=50, n_related=300)


def test_measurements_replace_predictions_and_scale_the_others():
    costs = [DatasetCost(f"d{k}", "a", s, 1) for k, s in enumerate([1.0, 2.0, 4.0])]
    found = measured(costs, {"d0": 3.0, "d1": 6.0})

    assert [c.seconds for c in found] == [3.0, 6.0, 12.0]
    assert measured(costs, {}) == costs


def test_fitted_coefficients_come_back():
    random = np.random.default_rng(0)
    known = Coefficients(2e-9, 3e-11, 4e-11, 5e-9, 0.01)
    scales = np.array([[6, 9], [8, 11], [8, 11], [6, 9]])
    work = [Work(*(10.0 ** random.uniform(*scales.T))) for _ in range(30)]
    found = fit(work, [known.seconds(w) for w in work])

    for name in ("entry", "map", "decoder", "score", "once"):
        assert getattr(found, name) == pytest.approx(getattr(known, name), rel=1e-6)


def test_no_fitted_coefficient_is_negative():
    work = [Work(1.0, 2.0, 3.0, 4.0), Work(2.0, 1.0, 1.0, 1.0), Work(4.0, 0.0, 1.0, 2.0)]
    found = fit(work, [3.0, 1.0, 0.5])

    assert min(found.entry, found.map, found.decoder, found.score, found.once) >= 0.0


def test_work_counts_what_a_round_computes():
    model = ModelConfig(dim=32, encoder="transformer", decoder="mlp")
    found = work_of(SIZE, model, TrainingConfig())
    dense, heads = 32 * 128 + 128 * 64 + 64 * 32 + 128 * 32, 4 + 2 + 1 + 1
    maps = (2 * 300 + 16) * 32 + 50 * 16

    assert found.entries == 4000 * 32 * heads
    assert found.maps == 300 * (4 * dense + maps)
    assert found.decoder == 2 * 300**2 * 32 + 2 * 300**3
    assert found.scores == 300**2 + 400**2


@pytest.mark.parametrize(
    ("model", "training", "part"),
    [
        ({}, {"row_block": 100}, "decoder"),
        ({"decoder": "pairwise"}, {"pairs": 500}, "decoder"),
        ({}, {"loss": {"n_contrast": 50}}, "scores"),
        ({"embedding": "layers", "encoder": "transformer"}, {}, "maps"),
    ],
)
def test_settings_that_save_work_are_seen(model, training, part):
    size = replace(SIZE, n_related=0) if model.get("embedding") == "layers" else SIZE
    whole = work_of(SIZE, ModelConfig.model_validate(model | {"embedding": "maps"}), TrainingConfig())
    less = work_of(size, ModelConfig.model_validate(model), TrainingConfig.model_validate(training))

    assert getattr(less, part) < getattr(whole, part)


def test_larger_datasets_cost_more(cluster_run):
    store, config = cluster_run
    costs = dataset_costs(store, config)

    assert [c.name for c in costs] == [d.name for d in config.datasets]
    assert all(c.seconds > 0 and c.bytes > 0 for c in costs)
    assert costs[-1].seconds > costs[0].seconds
    assert costs[-1].bytes > costs[0].bytes
    assert {c.group for c in costs} == {"scrna", "spatial", "scatac"}


@pytest.mark.parametrize(("rounds", "recompute"), [(20, False), (20, True), (0, False)])
def test_one_actor_with_everything_takes_what_one_process_does(cluster_run, rounds, recompute):
    """But for what the heads of the store do not tell: edges that the rule drops, genes that nobody else has."""
    store, config = cluster_run
    training = config.training.model_copy(update={"rounds": rounds, "recompute": recompute})
    config = config.model_copy(update={"training": training})
    costs = dataset_costs(store, config)
    data = prepare(store, config)
    sizes = [
        size_of(graph, config.model, data.records[graph.name].profile.shape[1], data.anchors) for graph in data.graphs
    ]
    n_words = sum(size.n_genes for size in sizes) // 2  # as if every gene were in two datasets
    loaded = count_bytes((data.records, data.edges, data.graphs))
    alone = estimate_memory(sizes, config.model, config.training, n_anchors=n_words, data_bytes=loaded)
    assert alone.total >= check_memory(data, config.model, config.training, 10**12).total

    mine, theirs = Room(costs, None).taken(range(12)) - BASE, alone.total - alone.parts["base"]
    assert 1.0 <= mine / theirs < 2.0
