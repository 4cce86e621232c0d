"""Modules: planted ones are found and carried to other datasets; none are in noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.metrics import adjusted_rand_score

from musegnn.evaluation import modules
from musegnn.evaluation.modules import (
    coexpression_modules,
    module_document,
    module_scores,
    module_sets,
    topological_overlap,
)

N, MODULES = 240, 4
TRUTH = np.where(np.arange(N) < 160, np.arange(N) % MODULES, -1)


def estimates(*, within, seed=0):
    random = np.random.default_rng(seed)
    same = (TRUTH[:, None] == TRUTH) & (TRUTH >= 0)
    r = np.where(same, within, 0.0) + 0.1 * random.normal(size=(N, N))
    r = np.clip(np.triu(r, 1) + np.triu(r, 1).T, -1.0, 1.0)
    return csr_matrix(r)


def test_planted_modules_are_found():
    label = coexpression_modules(estimates(within=0.7))
    assert label.max() == MODULES - 1
    inside = label >= 0
    assert adjusted_rand_score(TRUTH[inside], label[inside]) == 1.0
    assert inside[TRUTH >= 0].mean() > 0.85
    sizes = np.bincount(label[label >= 0])
    assert np.all(np.diff(sizes) <= 0)


def test_noise_has_no_several_modules():
    label = coexpression_modules(estimates(within=0.0))
    assert abs(adjusted_rand_score(TRUTH, label)) < 0.05
    assert coexpression_modules(csr_matrix((N, N))).tolist() == [-1] * N


def test_of_many_genes_the_most_connected_are_sorted(monkeypatch):
    monkeypatch.setattr(modules, "MAX_GENES", 140)
    label = coexpression_modules(estimates(within=0.7))
    inside = label >= 0
    assert 100 < inside.sum() <= 140
    assert adjusted_rand_score(TRUTH[inside], label[inside]) == 1.0


def test_negative_estimates_tie_nothing():
    np.testing.assert_array_equal(coexpression_modules(-abs(estimates(within=0.7))), np.full(N, -1))


def test_topological_overlap_is_its_definition():
    random = np.random.default_rng(0)
    a = np.triu(random.random((6, 6)), 1)
    a += a.T
    found = topological_overlap(a)
    for i in range(6):
        for j in range(6):
            if i != j:
                shared = sum(a[i, u] * a[u, j] for u in range(6)) + a[i, j]
                expected = shared / (min(a[i].sum(), a[j].sum()) + 1 - a[i, j])
                assert found[i, j] == pytest.approx(expected)
    assert np.all(np.diag(found) == 1.0)


def test_vectors_are_asked_for_modules_of_other_datasets(make_graph):
    keys = [f"g{k:03}" for k in range(N)]
    graphs = [make_graph(name, keys) for name in ("a", "b")]
    found_modules = module_sets(graphs, {"a": estimates(within=0.7), "b": csr_matrix((N, N))})
    assert (len(found_modules["a"]), len(found_modules["b"])) == (MODULES, 0)
    random = np.random.default_rng(1)
    knows, noise = ({name: random.normal(size=(N, 12)) for name in "ab"} for _ in range(2))
    knows["b"][:, :MODULES] += 3.0 * (TRUTH[:, None] == np.arange(MODULES))
    found = module_scores(graphs, knows, found_modules)
    assert {where for where, _ in found.auroc} == {"b"}
    assert found.mean > 0.9
    document = module_document(graphs, {"knows": knows, "noise": noise}, found_modules, seed=0)
    assert document["n_modules"] == {"a": MODULES, "b": 0}
    assert abs(document["models"]["noise"]["auroc"] - 0.5) < 0.1
    assert abs(document["models"]["knows"]["permuted"] - 0.5) < 0.1


def test_an_overlap_that_rounds_above_one_is_no_negative_distance():
    rng = np.random.default_rng(0)
    values = rng.uniform(0.1, 0.9, (20, 20))
    values = (values + values.T) / 2
    values[0] = values[:, 0] = 1.0
    np.fill_diagonal(values, 0.0)
    label = coexpression_modules(csr_matrix(values), min_size=2)
    assert label.shape == (20,)
    assert label.max() >= 0
