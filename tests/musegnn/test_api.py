"""The model as a user meets it."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path

import numpy as np
import pytest

import musegnn as mg
from musegnn.api import MuSeGNN
from musegnn.errors import ConfigError, RunError

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


@pytest.mark.parametrize("embedding", ["maps", "layers"])
@pytest.mark.parametrize(
    ("loss", "falls"),
    [({}, ("loss", "alignment")), (dict.fromkeys(("similarity", "contrast", "alignment"), 0.0), ("reconstruction",))],
)
def test_training_lowers_the_losses(tmp_path, embedding, loss, falls):
    settings = {"training__rounds": 12, "training__loss": loss, "model__feature_dropout": 0.0}
    config = synthetic.make_atlas(tmp_path, 4, model__embedding=embedding, **settings)
    model = MuSeGNN(synthetic.make_store(tmp_path, config), config).train()
    by_round = [[r for r in model.history if r["kind"] == "losses" and r["round"] == k] for k in (1, 12)]
    for name in falls:
        first, last = (np.mean([r[name] for r in rows]) for rows in by_round)
        assert last < 0.6 * first


@pytest.mark.parametrize("encoder", ["transformer", "none"])
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
    np.testing.assert_array_equal(loaded.embeddings(layout=False).X, model.embeddings(layout=False).X)
    rows, cols = np.array([0, 3]), np.array([1, 0])
    scores = model.decoder_scores("brain", rows, cols)
    np.testing.assert_array_equal(loaded.decoder_scores("brain", rows, cols), scores)
    np.testing.assert_array_equal(model.decoder_scores("brain", cols, rows), scores)


def test_untrained_is_the_start_and_leaves_the_trained_alone(model):
    start = model.embeddings(layout=False).X.copy()
    model.train()
    trained = model.embeddings(layout=False).X.copy()
    untrained = model.untrained()
    np.testing.assert_array_equal(untrained.embeddings(layout=False).X, start)
    np.testing.assert_array_equal(model.embeddings(layout=False).X, trained)
    assert not np.array_equal(start, trained)
    assert (untrained.rounds, untrained.history) == (0, [])
    untrained.train()
    np.testing.assert_array_equal(untrained.embeddings(layout=False).X, trained)


def test_training_more_rounds_continues(model, tmp_path):
    steps = []
    model.train(progress=lambda *args: steps.append(args[:3]))
    assert steps == [("train", k, 12) for k in range(1, 13)]
    model.train(progress=lambda *args: steps.append(args))
    assert len(steps) == 12


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and "tensorboard" not in p.parts}


def test_no_rounds_leave_the_closed_form_and_a_finished_run(tmp_path):
    config = synthetic.make_atlas(tmp_path, 3, training__rounds=0)
    store = synthetic.make_store(tmp_path, config)
    model, run = MuSeGNN(store, config), tmp_path / "run"
    random = model.embeddings(layout=False).X
    model.train(run)
    start = model.untrained().started()
    np.testing.assert_array_equal(model.embeddings(layout=False).X, start.embeddings(layout=False).X)
    assert not np.allclose(model.embeddings(layout=False).X, random)
    loaded = MuSeGNN.load(run, store)
    assert loaded.rounds == 0
    np.testing.assert_array_equal(loaded.embeddings(layout=False).X, model.embeddings(layout=False).X)
    rows, cols = np.array([0, 3]), np.array([1, 0])
    np.testing.assert_array_equal(loaded.decoder_scores("brain", rows, cols), model.decoder_scores("brain", rows, cols))
    kinds = [(row["kind"], row["round"]) for row in loaded.history]
    assert kinds.count(("space", 0)) == 3
    assert {kind for kind, round_ in kinds if round_ == 0} == {"space", "watch", "process"}
    pairs = [(row["dataset"], row["partner"]) for row in loaded.history if row["kind"] == "watch"]
    assert len(pairs) == len(set(pairs))
    before = contents(run)
    MuSeGNN(store, config).train(run, resume=True)
    assert contents(run) == before


def test_records_of_a_stop_before_the_first_checkpoint_are_not_kept(tmp_path):
    config = synthetic.make_atlas(tmp_path, 2, training__rounds=0)
    store, run = synthetic.make_store(tmp_path, config), tmp_path / "run"
    MuSeGNN(store, config).train(run)
    strip = lambda rows: [{k: v for k, v in row.items() if not k.endswith(("seconds", "bytes"))} for row in rows]  # noqa: E731
    before = strip(MuSeGNN.load(run, store).history)
    for path in (run / "checkpoints").glob("*.json"):
        path.unlink()
    MuSeGNN(store, config).train(run, resume=True)
    assert strip(MuSeGNN.load(run, store).history) == before


def test_rounds_after_none_go_on_from_the_closed_form(tmp_path):
    config = synthetic.make_atlas(tmp_path, 2, training__rounds=3)
    store, run = synthetic.make_store(tmp_path, config), tmp_path / "run"
    expected = MuSeGNN(store, config).train().embeddings(layout=False).X
    none = config.model_copy(update={"training": config.training.model_copy(update={"rounds": 0})})
    MuSeGNN(store, none).train(run)
    longer = MuSeGNN(store, config).train(run, resume=True)
    np.testing.assert_array_equal(longer.embeddings(layout=False).X, expected)


def test_training_a_trained_model_again_changes_nothing(model):
    trained = model.train().embeddings(layout=False).X
    np.testing.assert_array_equal(model.train().embeddings(layout=False).X, trained)


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
    with pytest.raises(ConfigError, match=r"E307.*lung-b.*liver"):
        MuSeGNN(model.store, config)


def test_a_folder_without_a_run_is_refused(model, tmp_path):
    with pytest.raises(RunError, match="E401"):
        MuSeGNN.load(tmp_path / "nothing", model.store)


DATA = Path(__file__).resolve().parents[1] / "data"


def test_a_model_is_loaded_without_naming_its_store():
    known = MuSeGNN.load(DATA / "closed_form", mg.Store.open(DATA / "store"))
    for folder in (DATA / "closed_form", str(DATA / "closed_form")):
        loaded = MuSeGNN.load(folder)
        assert loaded.store.path == DATA / "store"
        for name, vectors in known.vectors().items():
            np.testing.assert_array_equal(loaded.vectors()[name], vectors)


def test_a_store_alone_makes_a_model():
    model = MuSeGNN(str(DATA / "store"))
    assert [d.name for d in model.config.datasets] == model.store.datasets()
    assert model.config.training.rounds == 0


def test_what_is_printed_says_what_it_is():
    store = mg.Store.open(DATA / "store")
    names, model = store.datasets(), MuSeGNN.load(DATA / "closed_form")
    rows = sum(store.info(name)["n_genes"] for name in names)
    assert repr(model).startswith(f"MuSeGNN: {len(names)} datasets ({model.graphs[0].name}, ")
    assert f", {rows} vectors of {model.config.model.dim} dimensions, closed form; store " in repr(model)
    assert "untrained" in repr(MuSeGNN(store))
    assert repr(store).startswith(f"Store('{store.path}'): {len(names)} datasets\n  {names[0]}: ")
    shown = repr(model.config)
    assert shown.startswith(f"AtlasConfig: {len(names)} datasets\n")
    assert f"model.dim={model.config.model.dim}" in shown


def test_progress_is_shown_and_can_be_silenced(model, capsys):
    model.train(progress=False)
    assert capsys.readouterr().err == ""
    model.untrained().train()
    assert "train: 12/12" in capsys.readouterr().err


def test_scanpy_draws_the_embeddings(model):
    sc = pytest.importorskip("scanpy")
    adata = model.train(progress=False).embeddings()
    assert adata.obsm["X_umap"].shape == (160, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure = sc.pl.umap(adata, color=["cluster", "dataset"], show=False, return_fig=True)
    assert len(figure.axes) >= 2


def test_tab_shows_the_public_names():
    assert set(mg.__all__) <= set(dir(mg))
    assert not [name for name in dir(mg) if name.startswith("_") and name != "__version__"]
    for name in mg.__all__:
        assert getattr(mg, name) is not None
