"""The example atlas, of real counts: the bits of one process for any number of actors and any placement."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from musegnn.api import MuSeGNN
from musegnn.atlas_file import load_atlas
from musegnn.pipeline import build_graphs
from musegnn.run_folder import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.chaos]
ATLAS = Path(__file__).resolve().parents[2] / "examples" / "atlas" / "atlas.yaml"


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Build the store and train 20 rounds in one process, without Ray."""
    folder = tmp_path_factory.mktemp("atlas")
    config = load_atlas(ATLAS, {"training.rounds": 20})
    store = build_graphs(config, folder / "store.zarr")
    model = MuSeGNN(store, config).train(folder / "run")
    return store, config, model.embeddings(layout=False).X, folder / "run"


@pytest.mark.parametrize(
    ("actors", "owner"),
    [(1, None), (2, None), (3, None), (4, None), (2, [1, 1, 0, 0, 0, 1, 0]), (3, [2, 0, 0, 1, 2, 2, 1])],
)
def test_the_example_atlas_has_the_bits_of_one_process(ray_cluster, alone, helpers, tmp_path, actors, owner):
    from musegnn.cluster.options import ClusterOptions
    from musegnn.cluster.train import train_on_cluster

    store, config, expected, run = alone
    folder = RunFolder.create(tmp_path / "run", config, store=store.path)
    train_on_cluster(folder, store, ClusterOptions(actors=actors), owner=owner)

    assert helpers.units(folder.path) == helpers.units(run)
    assert helpers.units(run)[0] == 20
    np.testing.assert_array_equal(MuSeGNN.load(folder.path, store).embeddings(layout=False).X, expected)
