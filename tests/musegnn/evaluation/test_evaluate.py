"""The whole evaluation: planted model against noise, its JSON and its table."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from benchmarks.graphs import held_out_pairs
from musegnn.data_store.records import PairTable
from musegnn.evaluation import neighbor_graph as graph_module
from musegnn.evaluation.baselines.candidates import baseline_candidates, vector_candidate
from musegnn.evaluation.dataset_pairs import PAIR_GROUPS
from musegnn.evaluation.edge_prediction import pair_cosine
from musegnn.evaluation.evaluate import evaluate, visible_pairs, write_evaluation
from musegnn.evaluation.published_metrics import published_metrics
from musegnn.evaluation.table import to_table
from musegnn.vectors import unit_rows


@pytest.fixture(scope="module")
def scene(make_atlas):
    graphs, vectors = make_atlas(n=110, pool=140, n_datasets=4)
    random = np.random.default_rng(9)
    noise = {name: random.normal(size=x.shape) for name, x in vectors.items()}
    estimates = {t.name: csr_matrix(unit_rows(vectors[t.name]) @ unit_rows(vectors[t.name]).T) for t in graphs}
    candidates = {
        "trained": vector_candidate("planted", vectors, decoder=lambda name: pair_cosine(vectors[name])),
        "untrained": vector_candidate("noise", noise),
        **baseline_candidates(
            graphs,
            profiles=vectors,
            estimates=estimates,
            statistics=estimates,
            mean_counts={t.name: random.random(t.n_genes) for t in graphs},
            dims=(4, 8),
        ),
    }
    return graphs, candidates


@pytest.fixture(scope="module")
def document(scene):
    return evaluate(*scene, resolutions=(0.5, 2.0), seed=1)


def test_planted_model_wins_and_noise_is_at_chance(document):
    models = document["models"]
    trained, noise = models["trained"], models["untrained"]
    assert trained["retrieval"]["held_out"]["overall"]["mrr"] > 0.95
    assert trained["retrieval"]["held_out"]["overall"]["recall"] > 0.98
    chance = noise["retrieval"]["held_out"]["overall"]
    assert abs(chance["mrr"] - chance["chance_mrr"]) < 0.04
    assert abs(chance["recall"] - chance["chance_recall"]) < 0.1
    assert models["expression_level"]["retrieval"]["held_out"]["overall"]["mrr"] < 0.1
    assert trained["held_out_edges"]["overall"]["cosine"]["positive"] == 1.0
    assert trained["held_out_edges"]["overall"]["decoder"] == trained["held_out_edges"]["overall"]["cosine"]
    assert abs(noise["held_out_edges"]["overall"]["cosine"]["all"] - 0.5) < 0.05
    assert trained["published"]["auc"] > 0.5 > noise["published"]["auc"] - 0.05
    assert document["comparisons"]["untrained"]["verdict"] == "better"
    assert document["comparisons"]["pca_procrustes"]["verdict"] == "tied"


@pytest.mark.parametrize("group", PAIR_GROUPS)
def test_groups_are_reported_apart(document, group):
    pairs = document["models"]["trained"]["retrieval"]["pairs"]
    values = [p["held_out"]["mrr"] for p in pairs if p["group"] == group and p["held_out"]["n_queries"]]
    summary = document["models"]["trained"]["retrieval"]["held_out"][group]
    assert summary["n_pairs"] == len(values)
    assert summary["mrr"] == (pytest.approx(np.mean(values), abs=1e-5) if values else None)


def test_what_a_model_cannot_do_is_null(document):
    profile = document["models"]["coexpression_profile"]
    assert profile["held_out_edges"] is profile["space"] is profile["published"] is profile["joint"] is None
    assert "decoder" not in document["models"]["untrained"]["held_out_edges"]["overall"]


def test_document_is_json_without_nan_and_the_same_every_time(scene, document, tmp_path):
    write_evaluation(document, tmp_path / "evaluation.json")
    text = (tmp_path / "evaluation.json").read_text()
    assert json.loads(text) == document
    assert "NaN" not in text
    write_evaluation(evaluate(*scene, resolutions=(0.5, 2.0), seed=1), tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "evaluation.json").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.json", "evaluation.json"]


def test_failed_write_keeps_the_old_file(document, tmp_path):
    path = tmp_path / "evaluation.json"
    write_evaluation(document, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_evaluation({"value": float("nan")}, path)
    assert path.read_bytes() == before


def test_table_is_short_and_shows_ours_beside_baselines_and_chance(document):
    lines = to_table(json.loads(json.dumps(document))).splitlines()
    assert max(map(len, lines)) <= 120
    assert [line.split("  ")[0] for line in lines[3:6]] == ["musegnn", "aligned PCA", "chance"]
    joint = document["models"]["trained"]["joint"]
    mrr, mixed, edges, kept = lines[3].split()[1:]
    assert mrr == f"{joint['retrieval']['held_out']['overall']['mrr']:.4f}"
    assert mixed == f"{joint['mixing']['within_tissue']:.2f}"
    assert (edges, kept) == ("1.00", f"{joint['conservation']['overall']['specificity']:.2f}")
    assert "transfer" not in lines[2]
    assert "evaluation.json" in lines[-1]


def test_joint_measures_tell_the_planted_model_from_noise(document):
    ours, noise = (document["models"][name]["joint"] for name in ("trained", "untrained"))
    assert ours["retrieval"]["held_out"]["overall"]["mrr"] > 0.9
    chance = noise["retrieval"]["held_out"]["overall"]
    assert abs(chance["mrr"] - chance["chance_mrr"]) < 0.02
    assert document["joint_comparisons"]["untrained"]["verdict"] == "better"
    assert document["joint_comparisons"].keys() == {"untrained", "pca_procrustes"}
    assert ours["conservation"]["overall"]["specificity"] > 0.9
    assert abs(noise["conservation"]["overall"]["specificity"] - 0.5) < 0.1
    assert abs(noise["mixing"]["overall"] - 1) < 0.1
    rows = document["models"]["trained"]["published"]["resolutions"]
    assert ours["islands"]["identity_nmi"] == pytest.approx(np.mean([row["identity_nmi"] for row in rows]), abs=1e-6)


def test_published_rows_and_bounds(document):
    scores = document["models"]["trained"]["published"]
    assert [row["resolution"] for row in scores["resolutions"]] == [0.5, 2.0]
    assert scores["resolutions"][0]["n_clusters"] <= scores["resolutions"][1]["n_clusters"]
    assert scores["subsets"]["common"]["n_rows"] % 4 == 0
    assert scores["subsets"]["common"]["n_rows"] < scores["subsets"]["shared"]["n_rows"]
    for row in scores["resolutions"]:
        assert 0 <= row["cgr"] <= scores["cgr_bound"]
        assert all(0 <= row[name][key] <= 1 for name in ("common", "shared") for key in ("asw", "gc"))
        assert 0 <= row["no"] <= 1


def test_absent_igraph_is_said(scene, monkeypatch):
    monkeypatch.setattr(graph_module, "find_spec", lambda _: None)
    graphs, candidates = scene
    document = evaluate(graphs, {"trained": candidates["trained"]})
    scores = document["models"]["trained"]["published"]
    assert scores["resolutions"] == []
    assert "igraph is not installed" in scores["absent"]
    assert scores["auc"] is not None
    assert document["models"]["trained"]["joint"]["islands"]["dataset_nmi"] is None


def test_small_spaces_say_why_values_are_missing(make_graph):
    graphs = [make_graph("a", "xyz", edges=[(0, 1)]), make_graph("b", "xy", edges=[(0, 1)])]
    scores = published_metrics(graphs, {"a": np.eye(3), "b": np.eye(2, 3)}, resolutions=(1.0,), seed=0)
    assert "15 rows" in scores["absent"]
    assert "more than 90 rows" in scores["subsets"]["shared"]["absent"]
    assert np.isnan(scores["subsets"]["shared"]["ilisi"])


def test_a_run_without_hold_outs_has_no_held_out_scores(make_atlas):
    graphs, vectors = make_atlas(n_datasets=2)
    whole = [replace(t, trainable=np.ones(t.n_genes, bool), held_out=held_out_pairs()) for t in graphs]
    document = evaluate(whole, {"trained": vector_candidate("", vectors), "twin": vector_candidate("", vectors)})
    model = document["models"]["trained"]
    assert model["retrieval"]["held_out"]["overall"]["mrr"] is None
    assert model["retrieval"]["anchors"]["overall"]["mrr"] > 0.9
    assert model["held_out_edges"]["overall"]["cosine"] == {"all": None, "positive": None, "negative": None}
    assert document["comparisons"]["twin"] is None
    assert "musegnn" in to_table(document)


def test_single_dataset_is_evaluated(make_atlas):
    graphs, vectors = make_atlas(n_datasets=1)
    document = evaluate(graphs, {"trained": vector_candidate("", vectors)})
    assert document["models"]["trained"]["retrieval"]["pairs"] == []
    assert document["models"]["trained"]["held_out_edges"]["overall"]["cosine"]["positive"] == 1.0
    assert "joint MRR" not in to_table(document)


def test_held_out_edges_leave_the_stored_pairs(make_graph):
    estimate = np.array([[0, 0.5, -0.2], [0.5, 0, 0.7], [-0.2, 0.7, 0]], dtype=np.float32)
    sparse = csr_matrix(estimate)
    stored = PairTable(
        indptr=sparse.indptr.astype(np.int64),
        indices=sparse.indices.astype(np.int32),
        z=sparse.data * 10,
        estimate=sparse.data,
        n_tests=3,
        z_store=1.96,
        histogram=np.zeros(801, np.int64),
    )
    expected = estimate.copy()
    expected[1, 2] = expected[2, 1] = 0
    seen, z = visible_pairs(stored, make_graph("a", "xyz", held=[(1, 2)]).held_out)
    assert np.array_equal(seen.toarray(), expected)
    assert np.array_equal(z.toarray(), expected * 10)
