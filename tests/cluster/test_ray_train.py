"""The adapter for Ray Train trains to the same bits."""

from __future__ import annotations

import pytest

from musegnn.api import MuSeGNN
from musegnn.run_folder import RunFolder
from musegnn.training.checkpoint import manifests

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore"),
]  # Ray Train's own deprecations


def units(run):
    newest = manifests(run / "checkpoints")[0]
    return newest.round, {name: shard.sha256 for name, shard in newest.units.items()}


def test_two_workers_of_ray_train_give_the_bits_of_one_process(ray_cluster, cluster_run, tmp_path):
    from ray.train import RunConfig

    from musegnn.cluster.ray_train import trainer_for

    store, config = cluster_run
    MuSeGNN(store, config).train(tmp_path / "alone")
    folder = RunFolder.create(tmp_path / "run", config, store=store.path)
    result = trainer_for(folder, workers=2, run_config=RunConfig(storage_path=str(tmp_path / "ray"))).fit()

    assert result.error is None
    assert units(folder.path) == units(tmp_path / "alone")
