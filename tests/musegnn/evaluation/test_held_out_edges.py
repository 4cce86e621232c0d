"""AUROC of edges against scikit-learn, planted structure and nulls."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from musegnn.evaluation.edge_prediction import auroc, degree_auc, graph_auc, held_out_auc, pair_cosine

SCORES = st.lists(st.integers(-4, 4), min_size=1, max_size=30)


@given(SCORES, SCORES)
def test_auroc_equals_scikit_learn_with_ties(positive, negative):
    labels = [1] * len(positive) + [0] * len(negative)
    expected = roc_auc_score(labels, positive + negative)
    assert auroc(np.array(positive), np.array(negative)) == pytest.approx(expected, abs=1e-12)


def test_auroc_is_undefined_without_a_class():
    assert np.isnan(auroc(np.array([]), np.array([1.0])))
    assert np.isnan(auroc(np.array([1.0]), np.array([])))


def test_cosine_equals_the_definition():
    x = np.random.default_rng(0).normal(size=(9, 4))
    rows, cols = np.array([0, 3, 8]), np.array([1, 3, 2])
    expected = [x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]) for i, j in zip(rows, cols, strict=True)]
    assert np.allclose(pair_cosine(x)(rows, cols), expected, atol=1e-12)


def test_planted_edges_are_found(make_atlas):
    graphs, vectors = make_atlas(n_datasets=1)
    graph, x = graphs[0], vectors["d0"]
    assert set(graph.held_out.sign) == {-1, 1}
    cosine = pair_cosine(x)
    signed = held_out_auc(cosine, graph.held_out)
    assert signed["positive"] == 1.0
    assert signed["negative"] == 0.0
    assert 0.2 < signed["all"] < 0.8
    assert held_out_auc(lambda r, c: np.abs(cosine(r, c)), graph.held_out)["all"] == 1.0


def test_null_vectors_give_one_half(make_graph):
    random = np.random.default_rng(3)
    pairs = random.integers(0, 500, (20_000, 2))
    sign = random.choice([-1, 1], 10_000)
    graph = make_graph("a", [f"g{i}" for i in range(500)], held=pairs[:10_000], others=pairs[10_000:], sign=sign)
    scores = held_out_auc(pair_cosine(random.normal(size=(500, 16))), graph.held_out)
    standard_error = np.sqrt(1 / 12 * (1 / 5_000 + 1 / 10_000))
    assert all(abs(value - 0.5) < 4 * standard_error for value in scores.values())
    assert abs(held_out_auc(lambda r, c: np.zeros(len(r)), graph.held_out)["all"] - 0.5) == 0


def test_signs_are_scored_apart(make_graph):
    score = np.array([[0.0, 3.0, -3.0, 0.5], [3.0, 0.0, 0.1, 0.2], [-3.0, 0.1, 0.0, 0.3], [0.5, 0.2, 0.3, 0.0]])
    graph = make_graph("a", "wxyz", held=[(0, 1), (0, 2)], sign=[1, -1], others=[(1, 2), (1, 3)])
    assert held_out_auc(lambda r, c: score[r, c], graph.held_out) == {"all": 0.5, "positive": 1.0, "negative": 0.0}


def test_no_held_out_edges_is_undefined(make_graph):
    scores = held_out_auc(pair_cosine(np.eye(3)), make_graph("a", "xyz").held_out)
    assert all(np.isnan(value) for value in scores.values())


def test_degree_control_sees_an_unmatched_choice(make_graph):
    hub = [(0, i) for i in range(1, 12)]
    keys = [f"g{i}" for i in range(30)]
    unmatched = make_graph("a", keys, edges=hub, held=[(0, 12), (0, 13)], others=[(20, 21), (22, 23)])
    matched = make_graph("a", keys, edges=hub, held=[(0, 12), (0, 13)], others=[(0, 14), (0, 15)])
    assert degree_auc(unmatched)["all"] == 1.0
    assert degree_auc(matched)["all"] == 0.5


def test_published_auc_equals_scikit_learn_on_every_pair(make_atlas):
    graphs, vectors = make_atlas(n_datasets=1, n=40)
    graph, x = graphs[0], vectors["d0"]
    labels, scores = [], []
    for i in range(40):
        neighbours = set(graph.edges.indices[graph.edges.indptr[i] : graph.edges.indptr[i + 1]])
        for j in range(40):
            if i != j:
                labels.append(j in neighbours)
                cosine = x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j])
                scores.append(1 / (1 + np.exp(-cosine)))
    assert graph_auc(x, graph.edges.indptr, graph.edges.indices) == pytest.approx(
        roc_auc_score(labels, scores), abs=1e-9
    )
