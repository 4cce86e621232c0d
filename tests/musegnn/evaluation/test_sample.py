"""What is evaluated of a large atlas: all of a small one, and an unbiased sample with its error of a large one."""

from __future__ import annotations

import numpy as np
import pytest

from musegnn.evaluation import sample
from musegnn.evaluation.baselines.candidates import vector_candidate
from musegnn.evaluation.evaluate import evaluate
from musegnn.evaluation.joint import conservation, joint_error, mixing, retrieve_jointly
from musegnn.evaluation.retrieval import retrieve_all, summarize_pairs
from musegnn.evaluation.sample import draw_sample, sampling_error


@pytest.fixture
def scene(make_atlas):
    return make_atlas(seed=3, n=60, n_datasets=9, pool=90, noise=1.0)


@pytest.fixture
def small_limits(monkeypatch):
    monkeypatch.setattr(sample, "MOST_PAIRS", 18)
    monkeypatch.setattr(sample, "MOST_DATASETS", 3)
    monkeypatch.setattr(sample, "MOST_ROWS", 300)
    monkeypatch.setattr(sample, "QUERIES", 40)
    monkeypatch.setattr(sample, "MIXING_ROWS", 30)


def overall(pairs):
    return summarize_pairs(pairs)["overall"]["mrr"]


def test_a_small_atlas_is_evaluated_whole(scene):
    graphs, _ = scene
    found = draw_sample(graphs)
    assert found.is_whole
    assert found.queries is found.rows is found.graph_rows is None
    assert (len(found.pairs), found.datasets) == (36, list(range(9)))


def test_a_large_atlas_is_sampled_up_to_the_limits(scene, small_limits):
    graphs, _ = scene
    found = draw_sample(graphs, seed=1)
    again = draw_sample(graphs, seed=1)
    assert not found.is_whole
    assert (len(found.pairs), len(found.datasets)) == (18, 3)
    assert found.describe() == again.describe()
    np.testing.assert_array_equal(found.queries, again.queries)
    held_out = ~np.concatenate([t.trainable for t in graphs])
    assert (found.queries & held_out).sum() == (found.queries & ~held_out).sum() == 20
    assert found.rows.sum() == 30
    genes = np.concatenate([t.keys for t in graphs])
    inside = set(genes[found.graph_rows])
    assert found.graph_rows.sum() <= 300
    assert not inside & set(genes[~found.graph_rows])  # all copies of a gene, or none


def test_all_queries_are_the_whole_bit_for_bit(scene):
    graphs, vectors = scene
    everything = np.ones(sum(t.n_genes for t in graphs), dtype=np.bool_)
    whole, same = retrieve_jointly(graphs, vectors), retrieve_jointly(graphs, vectors, queries=everything)
    for a, b in zip(whole, same, strict=True):
        np.testing.assert_array_equal(a.held_out.key, b.held_out.key)
        np.testing.assert_array_equal(a.held_out.reciprocal_rank, b.held_out.reciprocal_rank)
        np.testing.assert_array_equal(a.anchors.recall, b.anchors.recall)
    assert mixing(graphs, vectors) == mixing(graphs, vectors, rows=everything)


def test_estimates_have_no_bias_and_the_error_that_they_state(scene, small_limits):
    graphs, vectors = scene
    similarity = vector_candidate("", vectors).similarity
    truth = {
        "pairs": overall(retrieve_all(graphs, similarity)),
        "joint": overall(retrieve_jointly(graphs, vectors)),
        "mixing": mixing(graphs, vectors)["overall"],
        "conservation": conservation(graphs, vectors)["overall"]["specificity"],
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in truth}
    for seed in range(40):
        s = draw_sample(graphs, seed)
        pairs = retrieve_all(graphs, similarity, s.pairs)
        means = np.array([p.held_out.reciprocal_rank.mean() for p in pairs])
        found["pairs"].append((overall(pairs), sampling_error(means, s.n_pairs)))
        joint = retrieve_jointly(graphs, vectors, queries=s.queries)
        found["joint"].append((overall(joint), joint_error(joint)))
        mixed = mixing(graphs, vectors, rows=s.rows)
        found["mixing"].append((mixed["overall"], mixed["error"]))
        kept = conservation(graphs, vectors, pairs=s.pairs)["overall"]
        found["conservation"].append((kept["specificity"], kept["error"]))
    for name, each in found.items():
        value, error = np.array(each).T
        spread = value.std(ddof=1)
        assert abs(value.mean() - truth[name]) < 4 * spread / np.sqrt(len(value)), name
        # a standard deviation of 40 draws is known to 11 %; that of the joint MRR takes genes for drawn, some of which
        # several rows ask for, and so is an upper bound
        low, high = (0.7, 1.4) if name != "joint" else (0.8, 2.5)
        assert low < np.sqrt((error**2).mean()) / spread < high, name


def test_the_error_is_zero_of_everything_and_that_of_a_mean_else():
    values = np.array([1.0, 2.0, 4.0])
    assert sampling_error(values, 3) == 0.0
    assert sampling_error(values, 6) == pytest.approx(np.std(values, ddof=1) / np.sqrt(3) * np.sqrt(0.5))
    assert sampling_error(values, np.inf, np.ones(3)) == pytest.approx(np.std(values, ddof=1) / np.sqrt(3))
    assert np.isnan(sampling_error(values[:1], 2))


def test_the_document_says_what_was_sampled_and_how_far_off_it_may_be(scene, small_limits):
    graphs, vectors = scene
    document = evaluate(graphs, {"trained": vector_candidate("", vectors)}, resolutions=(1.0,))
    assert document["sample"]["is_whole"] is False
    assert document["sample"]["n_pairs"] == [18, 36]
    model = document["models"]["trained"]
    assert 0 < model["errors"]["joint_mrr"] < model["joint"]["retrieval"]["held_out"]["overall"]["mrr"]
    assert model["errors"]["held_out_mrr"] > 0
    assert "retrieval_csls" not in model["joint"]
    assert model["published"]["resolutions"][0]["n_clusters"] >= 1
