"""A small trained model on planted modules, evaluated from records to table."""

from pathlib import Path

import numpy as np
import pytest

from musegnn.api import MuSeGNN
from musegnn.atlas_file import validate_atlas
from musegnn.data_store.records import DatasetRecord, GeneTable, PairTable
from musegnn.evaluation.baselines.candidates import relational_vectors
from musegnn.evaluation.evaluate import evaluate_model, write_evaluation
from musegnn.evaluation.table import to_table

N_CELLS, N_POOL, N_GENES = 1500, 90, 70
KINDS = {"one": ("scrna", "lung"), "two": ("scrna", "lung"), "three": ("spatial", "brain")}


class Records:
    """A store in memory."""

    path = Path("nowhere")

    def __init__(self, records):
        self._records = {r.name: r for r in records}

    def read(self, name):
        return self._records[name]


def make_record(name, modality, tissue, loading):
    random = np.random.default_rng([5, *name.encode()])
    chosen = np.sort(random.permutation(N_POOL)[:N_GENES])
    factors = random.normal(size=(loading.shape[1], N_CELLS))
    residuals = loading[chosen] @ factors + random.normal(size=(N_GENES, N_CELLS))
    residuals -= residuals.mean(axis=1, keepdims=True)
    correlation = np.corrcoef(residuals)
    np.fill_diagonal(correlation, 0.0)
    z = correlation * np.sqrt(N_CELLS)
    stored = np.abs(z) >= 1.96
    upper = np.abs(z[np.triu_indices(N_GENES, 1)])
    ones = np.ones(N_GENES)
    names = np.array([f"G{i}" for i in chosen])
    u, s, _ = np.linalg.svd(residuals, full_matrices=False)
    return DatasetRecord(
        name=name,
        modality=modality,
        tissue=tissue,
        species="human",
        condition=None,
        n_cells=N_CELLS,
        genes=GeneTable(
            gene=names,
            gene_id=names,
            mean=random.random(N_GENES),
            variance=ones,
            n_cells=np.full(N_GENES, N_CELLS),
            mu=ones,
            sigma=ones,
            score=ones,
        ),
        pairs=PairTable(
            indptr=np.concatenate([[0], np.cumsum(stored.sum(axis=1))]).astype(np.int64),
            indices=np.nonzero(stored)[1].astype(np.int32),
            z=z[stored].astype(np.float32),
            estimate=correlation[stored].astype(np.float32),
            n_tests=len(upper),
            z_store=1.96,
            histogram=np.bincount(np.minimum((upper / 0.05).astype(np.int64), 800), minlength=801),
        ),
        profile=(u * s).astype(np.float32),
    )


@pytest.fixture(scope="module")
def model():
    loading = np.random.default_rng(0).normal(size=(N_POOL, 10)) * (np.random.default_rng(1).random((N_POOL, 10)) < 0.3)
    records = [make_record(name, *kind, loading) for name, kind in KINDS.items()]
    datasets = [
        {"name": name, "path": f"{name}.h5ad", "modality": modality, "tissue": tissue, "species": "human"}
        for name, (modality, tissue) in KINDS.items()
    ]
    settings = {
        "datasets": datasets,
        "model": {"dim": 8, "heads_dataset": 2},
        "training": {"rounds": 60, "threads": 1, "checkpoint_every": 1000},
    }
    return MuSeGNN(Records(records), validate_atlas(settings, where="test")).train()


@pytest.fixture(scope="module")
def document(model):
    return evaluate_model(model)


def test_training_finds_genes_that_alignment_never_saw(document):
    trained, untrained = (
        document["models"][name]["retrieval"]["held_out"]["overall"] for name in ("trained", "untrained")
    )
    assert trained["mrr"] > 3 * trained["chance_mrr"]
    assert 1 - trained["mrr"] < 0.5 * (1 - untrained["mrr"])
    assert document["comparisons"]["untrained"]["verdict"] == "better"


def test_hold_outs_are_those_of_the_model(model, document):
    for described, graph in zip(document["datasets"], model.graphs, strict=True):
        assert described["n_held_out_genes"] == (~graph.trainable).sum() > 0
        assert described["n_held_out_edges"] == len(graph.held_out.rows) > 0
        assert described["n_training_edges"] == graph.edges.n_edges // 2
    assert document["settings"]["rounds"] == 60


def test_baselines_find_the_planted_modules(document):
    for name in ("pca_procrustes", "pca_pairwise", "coexpression_profile", "coexpression_z"):
        scores = document["models"][name]["retrieval"]["held_out"]["overall"]
        assert scores["mrr"] > 4 * scores["chance_mrr"], name
    scores = document["models"]["expression_level"]["retrieval"]["held_out"]["overall"]
    assert scores["mrr"] < 2.5 * scores["chance_mrr"]
    assert document["models"]["pca_procrustes"]["held_out_edges"]["overall"]["cosine"]["positive"] > 0.9


def test_raw_features_are_a_baseline(model, document):
    joint = document["models"]["relations"]["joint"]["retrieval"]["held_out"]["overall"]
    assert joint["mrr"] > 4 * joint["chance_mrr"]
    made = relational_vectors(model.graphs, model.records)
    for i, graph in enumerate(model.graphs):
        features = model._trainer.model.features(i)
        np.testing.assert_array_equal(made[graph.name][:, features.columns], features.values)
        assert np.count_nonzero(made[graph.name]) == np.count_nonzero(features.values)


def test_aligned_pca_says_how_many_components_were_chosen(document):
    chosen = document["models"]["pca_procrustes"]
    assert chosen["description"].startswith(f"{chosen['space']['dim']} principal components")


def test_decoder_is_scored_for_both_models(document):
    trained, untrained = (document["models"][name]["held_out_edges"]["overall"] for name in ("trained", "untrained"))
    assert trained["decoder"]["all"] > 0.5
    assert trained["decoder"].keys() == untrained["decoder"].keys()


def test_evaluation_leaves_the_model_as_it_was_and_repeats_itself(model, document, tmp_path):
    before = model.vectors()
    write_evaluation(document, tmp_path / "one.json")
    write_evaluation(evaluate_model(model), tmp_path / "two.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert all(np.array_equal(before[name], x) for name, x in model.vectors().items())
    assert [line.split("  ")[0] for line in to_table(document).splitlines()[3:7]] == [
        "musegnn",
        "aligned PCA",
        "raw features",
        "chance",
    ]


def test_the_start_is_a_row_of_its_own(document):
    models = document["models"]
    assert list(models)[:3] == ["trained", "start", "untrained"]
    start, untrained = (models[name]["retrieval"]["held_out"]["overall"]["mrr"] for name in ("start", "untrained"))
    assert start > untrained


@pytest.mark.parametrize("embedding", ["maps", "layers"])
def test_a_model_without_rounds_has_no_row_for_its_start(model, embedding):
    settings = model.config.model.model_copy(update={"embedding": embedding, "encoder": "transformer"})
    training = model.config.training.model_copy(update={"rounds": 0})
    config = model.config.model_copy(update={"model": settings, "training": training})
    models = evaluate_model(MuSeGNN(model.store, config).train())["models"]
    assert list(models)[:2] == ["trained", "untrained"]
    assert "start" not in models
    about = {"maps": "musegnn's two closed-form maps", "layers": "musegnn after 0 rounds"}
    assert models["trained"]["description"] == about[embedding]
    mrr = [models[name]["retrieval"]["held_out"]["overall"]["mrr"] for name in ("trained", "untrained")]
    assert (mrr[0] == mrr[1]) == (embedding == "layers")


def test_gene_sets_and_trained_baselines_are_scored_on_request(model):
    pytest.importorskip("gensim", reason="needs the extra `baselines`")
    loading = np.random.default_rng(0).normal(size=(N_POOL, 10)) * (np.random.default_rng(1).random((N_POOL, 10)) < 0.3)
    sets = {f"factor {k}": [f"G{i}" for i in np.flatnonzero(loading[:, k] > 0)] for k in range(10)}
    found = evaluate_model(model, sets=model.gene_sets(sets), trained_baselines=True)
    assert {"node2vec_32", "gae_32", "pca_procrustes_16", "layered_node2vec_64"} <= set(found["models"])
    scores = found["function"]["models"]
    assert found["function"]["n_sets"] > 5
    assert scores["trained"]["auroc"] > 0.75
    assert abs(scores["trained"]["permuted"] - 0.5) < 0.1
    assert abs(scores["expression_level"]["auroc"] - 0.5) < 0.15
    assert {"gss_32", "gemini_64"} <= set(scores)
    transfer = found["transfer"]["models"]
    assert transfer.keys() == scores.keys()
    assert all(transfer[name]["within"] == scores[name]["auroc"] for name in scores)
    assert transfer["trained"]["auroc"] > 0.75
    assert abs(transfer["trained"]["permuted"] - 0.5) < 0.1
    assert f"{transfer['trained']['auroc']:.2f}" in to_table(found).splitlines()[3]


def test_more_seeds_add_deviations_and_stability(model, document):
    found = evaluate_model(model, seeds=2)
    assert {k: v for k, v in found.items() if k != "seeds"} == document
    seeds = found["seeds"]
    assert seeds["seeds"] == [0, 1]
    assert seeds["models"]["trained"]["held_out_mrr"]["deviation"] > 0
    assert seeds["models"]["pca_procrustes"]["held_out_mrr"]["deviation"] == 0
    assert seeds["stability"]["pca_procrustes"] == 1.0
    assert seeds["stability"]["untrained"] < seeds["stability"]["trained"] < 1.0
    assert {"joint_mrr", "mixing", "conservation"} <= seeds["models"]["trained"].keys()


def test_modules_of_other_datasets_are_predicted(document):
    found = document["modules"]
    assert set(found["models"]) == {"trained", "start", "untrained", "pca_procrustes"}
    assert sum(found["n_modules"].values()) > 0
