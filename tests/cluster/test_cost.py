"""What datasets are predicted to cost, and what is learnt from measurements."""

from __future__ import annotations

from dataclasses import replace

import pytest

from musegnn.cluster.cost import dataset_costs, predict_seconds
from musegnn.cluster.placement import DatasetCost, actor_bytes, measured
from musegnn.config import ModelConfig, TrainingConfig
from musegnn.training.memory import DatasetSize, check_memory, dataset_sizes, estimate_memory
from musegnn.training.prepare import prepare
from musegnn.units import ACTOR_PROCESS as BASE

SIZE = DatasetSize(key="scrna", n_genes=3000, n_pairs=400_000, n_edges=400_000, n_profile=500, n_related=3000)


def test_measurements_replace_predictions_and_scale_the_others():
    costs = [DatasetCost(f"d{k}", s, 1) for k, s in enumerate([1.0, 2.0, 4.0])]
    found = measured(costs, {"d0": 3.0, "d1": 6.0})

    assert [c.seconds for c in found] == [3.0, 6.0, 12.0]
    assert measured(costs, {}) == costs


@pytest.mark.parametrize("encoder", ["transformer", "none"])
@pytest.mark.parametrize("decoder", ["mlp", "inner", "signed", "pairwise"])
def test_larger_datasets_take_longer(encoder, decoder):
    model, training = ModelConfig(encoder=encoder, decoder=decoder), TrainingConfig()
    for name in ("n_genes", "n_edges", "n_profile"):
        larger = replace(SIZE, **{name: 2 * getattr(SIZE, name)})
        seconds = predict_seconds(SIZE, model, training)
        if name != "n_edges" or encoder != "none":
            assert predict_seconds(larger, model, training) > seconds


@pytest.mark.parametrize(
    ("model", "training"),
    [
        ({}, {"row_block": 100}),
        ({"decoder": "pairwise"}, {"pairs": 500}),
        ({}, {"loss": {"n_contrast": 50}}),
        ({"embedding": "layers", "encoder": "transformer"}, {}),
    ],
)
def test_settings_that_save_work_are_seen(model, training):
    size = replace(SIZE, n_related=0) if model.get("embedding") == "layers" else SIZE
    loss = {"alignment": 1.0}
    saving = training | {"loss": loss | training.get("loss", {})}
    whole, less = TrainingConfig.model_validate({"loss": loss}), TrainingConfig.model_validate(saving)
    whole = predict_seconds(SIZE, ModelConfig.model_validate(model | {"embedding": "maps"}), whole)
    less = predict_seconds(size, ModelConfig.model_validate(model), less)

    assert less < whole


def test_larger_datasets_cost_more(cluster_run):
    store, config = cluster_run
    costs = dataset_costs(store, config)

    assert [c.name for c in costs] == [d.name for d in config.datasets]
    assert all(c.seconds > 0 and c.bytes > 0 for c in costs)
    assert costs[-1].seconds > costs[0].seconds
    assert costs[-1].bytes > costs[0].bytes


@pytest.mark.parametrize(("rounds", "recompute"), [(20, False), (20, True), (0, False)])
def test_one_actor_with_everything_takes_what_one_process_does(cluster_run, rounds, recompute):
    """But for what the heads of the store do not tell: edges that the rule drops, genes that nobody else has."""
    store, config = cluster_run
    training = config.training.model_copy(update={"rounds": rounds, "recompute": recompute})
    config = config.model_copy(update={"training": training})
    costs = dataset_costs(store, config)
    data = prepare(store, config)
    sizes = dataset_sizes(data, config.model)
    n_anchors = sum(size.n_genes for size in sizes) // 2  # as if every gene were in two datasets
    alone = estimate_memory(sizes, config.model, config.training, n_anchors=n_anchors)
    needed = sum(alone.values())
    assert needed >= sum(check_memory(data, config.model, config.training, 10**12).values())

    mine, theirs = actor_bytes(costs, range(12)) - BASE, needed - alone["libraries"]
    assert 1.0 <= mine / theirs < 2.0
