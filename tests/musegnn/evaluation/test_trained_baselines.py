"""Baselines that are trained: each finds planted modules, and none in a graph without any."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import sparse

from musegnn.evaluation.baselines.autoencoders import autoencode
from musegnn.evaluation.baselines.graphs import layered_graph, positive_graph
from musegnn.evaluation.baselines.pooled import diffused_graphs, pooled_profiles
from musegnn.vectors import unit_rows

pytest.importorskip("gensim", reason="needs the extra `baselines`")
from musegnn.evaluation.baselines.skipgram import (
    draw_together,
    gene2vec,
    hierarchical_node2vec,
    layered_node2vec,
    node2vec,
)

N, MODULES = 120, 4
MODULE = np.arange(N) % MODULES


def make_graph(name, *, within, seed=0):
    """Draw a graph whose genes of one module are tied with probability `within`, others with 0.05."""
    random = np.random.default_rng([seed, *name.encode()])
    chance = np.where(MODULE[:, None] == MODULE, within, 0.05)
    upper = np.triu(random.random((N, N)) < chance, 1)
    adjacency = sparse.csr_array(upper | upper.T)
    adjacency.sort_indices()
    rows = np.repeat(np.arange(N), np.diff(adjacency.indptr))
    z = np.where((rows + adjacency.indices) % 7 == 0, -4.0, 4.0)
    edges = SimpleNamespace(indptr=adjacency.indptr, indices=adjacency.indices, rows=rows, z=z)
    keys = np.array([f"g{k:03}" for k in range(N)])
    return SimpleNamespace(name=name, tissue="lung", n_genes=N, keys=keys, trainable=np.arange(N) % 3 != 0, edges=edges)


def make_profile(*, signal, seed=0):
    random = np.random.default_rng(seed)
    return signal * random.normal(size=(MODULES, 60))[MODULE] + random.normal(size=(N, 60))


def contrast(vectors, other=None):
    """Return the mean cosine within modules less that between them."""
    cosine = unit_rows(vectors) @ unit_rows(vectors if other is None else other).T
    same = MODULE[:, None] == MODULE
    apart = ~np.eye(N, dtype=bool)
    return cosine[same & apart].mean() - cosine[~same].mean()


SINGLE = {
    "gene2vec": lambda graph, profile: gene2vec(graph, dim=8, seed=0),
    "node2vec": lambda graph, profile: node2vec(graph, dim=8, seed=0),
    "gae": lambda graph, profile: autoencode("gae", graph, profile, dim=8, seed=0),
    "vgae": lambda graph, profile: autoencode("vgae", graph, profile, dim=8, seed=0),
    "mae": lambda graph, profile: autoencode("mae", graph, profile, dim=8, seed=0),
}


@pytest.mark.parametrize("name", SINGLE)
def test_planted_modules_are_found_and_absent_ones_are_not(name):
    found = SINGLE[name](make_graph("a", within=0.5), make_profile(signal=1.0))
    assert found.shape == (N, 8)
    assert contrast(found) > 0.15
    assert abs(contrast(SINGLE[name](make_graph("a", within=0.05), make_profile(signal=0.0)))) < 0.08


@pytest.mark.parametrize("name", SINGLE)
def test_equal_seeds_give_equal_vectors(name):
    first, second = (SINGLE[name](make_graph("a", within=0.5), make_profile(signal=1.0)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_layers_are_tied_by_genes_that_are_not_held_out():
    graphs = [make_graph(name, within=0.5) for name in ("a", "b")]
    edges, copies = layered_graph(graphs)
    positive = positive_graph(graphs[1])
    last = edges.indptr[-2:]
    np.testing.assert_array_equal(edges.indices[last[0] : last[1]] - N, positive.indices[positive.indptr[-2] :])
    tied = np.diff(copies.indptr) > 0
    np.testing.assert_array_equal(tied, np.tile(graphs[0].trainable, 2))
    assert copies.indices[copies.indptr[1]] == N + 1
    vectors = layered_node2vec(graphs, dim=8, seed=0)
    assert contrast(vectors["a"], vectors["b"]) > 0.15


def test_a_penalty_ties_the_genes_of_a_hierarchy():
    graphs = [make_graph(name, within=0.5) for name in ("a", "b")]
    vectors, again = (hierarchical_node2vec(graphs, dim=8, seed=0) for _ in range(2))
    np.testing.assert_array_equal(vectors["a"], again["a"])
    assert contrast(vectors["a"], vectors["b"]) > 0.15
    unit = {name: unit_rows(x) for name, x in vectors.items()}
    same = (unit["a"] * unit["b"]).sum(axis=1)
    assert same[graphs[0].trainable].mean() > same[~graphs[0].trainable].mean()
    noise = hierarchical_node2vec([make_graph(name, within=0.05) for name in ("a", "b")], dim=8, seed=0)
    assert abs(contrast(noise["a"], noise["b"])) < 0.08


def test_the_penalty_moves_children_halfway_to_a_parent_that_has_converged():
    keys = np.array(["g", "h"])
    both, one = np.array([True, True]), np.array([True, False])
    leaves = [
        ("lung", keys, np.array([[1.0], [5.0]]), both),
        ("lung", keys, np.array([[3.0], [7.0]]), one),
        ("brain", keys, np.array([[8.0], [9.0]]), one),
    ]
    draw_together(leaves)
    lung, brain = 4.0, 6.0  # of g: lung = (1 + 3 + root) / 3, brain = (8 + root) / 2, root = (lung + brain) / 2
    root = 5.0
    for _ in range(50):
        lung, brain = (1 + 3 + root) / 3, (8 + root) / 2
        root = (lung + brain) / 2
    expected = [(1 + lung) / 2, (3 + lung) / 2, (8 + brain) / 2]
    np.testing.assert_allclose([x[0, 0] for _, _, x, _ in leaves], expected, rtol=0.02)
    assert [x[1, 0] for _, _, x, _ in leaves] == [5.0, 7.0, 9.0]


def test_pooled_vectors_find_modules_and_are_equal_in_all_datasets():
    graphs = [make_graph(name, within=0.5) for name in ("a", "b")]
    profiles = {"a": make_profile(signal=1.0), "b": make_profile(signal=1.0, seed=1)}
    for found in (pooled_profiles(graphs, profiles, dim=8), diffused_graphs(graphs, dim=8)):
        np.testing.assert_array_equal(found["a"], found["b"])
        assert contrast(found["a"]) > 0.15
    empty = [make_graph(name, within=0.05) for name in ("a", "b")]
    noise = {name: make_profile(signal=0.0, seed=k) for k, name in enumerate("ab")}
    for found in (pooled_profiles(empty, noise, dim=8), diffused_graphs(empty, dim=8)):
        assert abs(contrast(found["a"])) < 0.08
