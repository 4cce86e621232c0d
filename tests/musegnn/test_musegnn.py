"""The model as a user meets it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from musegnn.errors import ConfigError, RunError
from musegnn.musegnn import MuSeGNN

_path = Path(__file__).with_name("training") / "conftest.py"
_spec = importlib.util.spec_from_file_location("synthetic_atlas", _path)
synthetic = importlib.util.module_from_spec(_spec)


@pytest.fixture(scope="module", autouse=True)
def _load():
    import sys

    sys.modules["synthetic_atlas"] = synthetic
    _spec.loader.exec_module(synthetic)


@pytest.fixture
def model(tmp_path):
    config = synthetic.make_atlas(tmp_path, 4, training__rounds=12)
    return MuSeGNN(synthetic.make_store(tmp_path, config), config)


def test_embeddings_have_one_row_per_gene_and_dataset(model):
    adata = model.train().embeddings()
    assert adata.shape == (160, 8)
    assert adata.X.dtype == np.float32
    assert np.isfinite(adata.X).all()
    assert adata.obs_names.is_unique
    assert adata.obs["dataset"].value_counts().to_dict() == {g.name: 40 for g in model.graphs}
    assert adata.obs["modality"].tolist()[80:81] == ["scatac"]
    mouse = adata.obs[adata.obs["dataset"] == "mouse"]
    assert mouse["gene_key"].str.startswith("human:G").all()
    assert mouse["gene"].str.startswith("g").all()
    held_out = adata.obs.groupby("gene_key")["held_out"].nunique()
    assert (held_out == 1).all()
    assert {"gene_id", "tissue", "species", "condition", "degree"} <= set(adata.obs.columns)
    np.testing.assert_array_equal(adata.X[:40], model.vectors()["lung.a"])


def test_training_lowers_the_losses(model):
    model.train()
    by_round = [[r for r in model.history if r["kind"] == "losses" and r["round"] == k] for k in (1, 12)]
    for name, factor in (("reconstruction", 1.0), ("alignment", 0.95)):
        first, last = (np.mean([r[name] for r in rows]) for rows in by_round)
        assert last < factor * first


@pytest.mark.parametrize("encoder", ["gcn", "gat", "gps", "graphormer", "magna", "none"])
def test_every_encoder_trains_and_comes_back(tmp_path, encoder):
    config = synthetic.make_atlas(tmp_path, 3, training__rounds=3, model__encoder=encoder)
    store = synthetic.make_store(tmp_path, config)
    model = MuSeGNN(store, config).train()
    again = MuSeGNN.load(model.save(tmp_path / "saved"), store)
    untrained = model.untrained().vectors()
    for name, vectors in model.vectors().items():
        np.testing.assert_array_equal(again.vectors()[name], vectors)
        assert not np.allclose(untrained[name], vectors)


def test_a_saved_model_comes_back_with_the_same_bits(model, tmp_path):
    model.train()
    folder = model.save(tmp_path / "saved")
    loaded = MuSeGNN.load(folder, model.store)
    assert loaded.rounds == 12
    np.testing.assert_array_equal(loaded.embeddings().X, model.embeddings().X)
    rows, cols = np.array([0, 3]), np.array([1, 0])
    scores = model.decoder_scores("brain", rows, cols)
    np.testing.assert_array_equal(loaded.decoder_scores("brain", rows, cols), scores)
    np.testing.assert_array_equal(model.decoder_scores("brain", cols, rows), scores)


def test_untrained_is_the_start_and_leaves_the_trained_alone(model):
    start = model.embeddings().X.copy()
    model.train()
    trained = model.embeddings().X.copy()
    untrained = model.untrained()
    np.testing.assert_array_equal(untrained.embeddings().X, start)
    np.testing.assert_array_equal(model.embeddings().X, trained)
    assert not np.array_equal(start, trained)
    assert (untrained.rounds, untrained.history) == (0, [])
    untrained.train()
    np.testing.assert_array_equal(untrained.embeddings().X, trained)


def test_training_more_rounds_continues(model, tmp_path):
    steps = []
    model.train(progress=lambda *args: steps.append(args[:3]))
    assert steps == [("train", k, 12) for k in range(1, 13)]
    model.train(progress=lambda *args: steps.append(args))
    assert len(steps) == 12


def test_no_rounds_still_leave_a_model(tmp_path):
    config = synthetic.make_atlas(tmp_path, 2, training__rounds=0)
    store = synthetic.make_store(tmp_path, config)
    model = MuSeGNN(store, config).train(tmp_path / "run")
    np.testing.assert_array_equal(MuSeGNN.load(tmp_path / "run", store).embeddings().X, model.embeddings().X)


def test_one_dataset_alone_trains(tmp_path):
    config = synthetic.make_atlas(tmp_path, 1)
    model = MuSeGNN(synthetic.make_store(tmp_path, config), config).train()
    assert [r["partner"] for r in model.history if r["kind"] == "losses"] == [None] * 3


def test_graph_reports_describe_each_graph(model):
    reports = model.graph_reports()
    assert [r["dataset"] for r in reports] == [g.name for g in model.graphs]
    for report in reports:
        assert report["n_edges"] == model.edges[report["dataset"]].n_edges // 2
        assert report["mean_degree"] == pytest.approx(2 * report["n_edges"] / report["n_genes"])


def test_labels_that_differ_from_the_store_are_refused(model):
    datasets = list(model.config.datasets)
    datasets[1] = datasets[1].model_copy(update={"tissue": "liver"})
    config = model.config.model_copy(update={"datasets": tuple(datasets)})
    with pytest.raises(ConfigError, match=r"E303.*lung-b.*liver"):
        MuSeGNN(model.store, config)


def test_a_folder_without_a_run_is_refused(model, tmp_path):
    with pytest.raises(RunError, match="E401"):
        MuSeGNN.load(tmp_path / "nothing", model.store)
