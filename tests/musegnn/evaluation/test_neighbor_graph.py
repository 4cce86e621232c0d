"""Neighbours, the UMAP graph and Leiden against their libraries and definitions."""

import random as python_random

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra
from sklearn.neighbors import NearestNeighbors

from musegnn import vectors
from musegnn.errors import MissingDependencyError
from musegnn.evaluation import neighbor_graph as graph_module
from musegnn.evaluation.neighbor_graph import connectivities, leiden, path_nearest
from musegnn.vectors import nearest_euclidean


def test_nearest_equals_scikit_learn(monkeypatch):
    x = np.random.default_rng(0).normal(size=(120, 6)) + 100
    distance, position = nearest_euclidean(x, 7)
    expected_distance, expected = NearestNeighbors(n_neighbors=8, algorithm="kd_tree").fit(x).kneighbors(x)
    assert np.array_equal(position, expected[:, 1:])
    assert np.allclose(distance, expected_distance[:, 1:], rtol=1e-10)
    monkeypatch.setattr(vectors, "BLOCK_ENTRIES", 500)
    assert np.array_equal(nearest_euclidean(x, 7)[1], position)


def test_nearest_of_equal_vectors_never_lists_the_vector_itself():
    distance, position = nearest_euclidean(np.zeros((6, 2)), 3)
    assert np.array_equal(distance, np.zeros((6, 3)))
    assert not (position == np.arange(6)[:, None]).any()


def test_too_few_vectors_are_refused():
    with pytest.raises(ValueError, match="more than 5 vectors"):
        nearest_euclidean(np.zeros((5, 2)), 5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Tensorflow not installed:ImportWarning")
def test_connectivities_equal_umap():
    import umap.umap_ as umap_module

    x = np.random.default_rng(0).normal(size=(150, 5))
    x[10] = x[11] = x[12]
    distance, position = nearest_euclidean(x, 14)
    expected, _, _ = umap_module.fuzzy_simplicial_set(
        x,
        15,
        np.random.RandomState(0),
        "euclidean",
        knn_indices=np.column_stack([np.arange(150), position]),
        knn_dists=np.column_stack([np.zeros(150), distance]).astype(np.float32),
    )
    # UMAP works in float32 and stops its bisection at 1e-5
    assert abs(connectivities(x) - expected).max() < 5e-5


def test_connectivities_follow_the_equation():
    x = np.random.default_rng(1).normal(size=(40, 3))
    weights = connectivities(x, n_neighbors=6).toarray()
    directed = np.zeros((40, 40))
    for i in range(40):
        d = np.linalg.norm(x - x[i], axis=1)
        near = np.argsort(d)[1:6]
        excess = d[near] - d[near].min()
        low, high = 1e-9, 1e9
        for _ in range(200):
            scale = np.sqrt(low * high)
            low, high = (low, scale) if np.exp(-excess / scale).sum() > np.log2(6) else (scale, high)
        directed[i, near] = np.exp(-excess / scale)
    expected = directed + directed.T - directed * directed.T
    assert np.allclose(weights, expected, atol=1e-8)
    assert np.array_equal(weights, weights.T)
    assert not weights.diagonal().any()


def test_paths_equal_scipy_and_stop_at_components():
    x = np.random.default_rng(2).normal(size=(200, 4))
    x[150:] += 1000
    graph = connectivities(x)
    length = dijkstra(graph, directed=False)
    np.fill_diagonal(length, np.inf)
    order = np.argsort(length, axis=1, kind="stable")[:, :90]
    distance, position = path_nearest(graph, 90)
    assert np.allclose(distance[:150], np.take_along_axis(length, order, axis=1)[:150], rtol=1e-12)
    assert np.array_equal(position[:150], order[:150])
    assert (position[150:, 49:] == -1).all()
    assert np.isinf(distance[150:, 49:]).all()
    assert (position[150:, :49] >= 150).all()


def test_paths_of_isolated_nodes():
    graph = csr_matrix(np.array([[0, 1.0, 0], [1.0, 0, 0], [0, 0, 0]]))
    _, position = path_nearest(graph, 2)
    assert position.tolist() == [[1, -1], [0, -1], [-1, -1]]


def test_leiden_finds_planted_blocks_and_repeats_itself():
    pytest.importorskip("igraph")
    centres = np.repeat(np.arange(4), 30)
    x = np.random.default_rng(0).normal(size=(120, 5)) + 20 * np.eye(4, 5)[centres]
    graph = connectivities(x)
    python_random.seed(1)
    labels = leiden(graph, resolution=0.2, seed=3)
    assert len(np.unique(labels)) == 4
    assert len({(a, b) for a, b in zip(centres.tolist(), labels.tolist(), strict=True)}) == 4
    state = python_random.getstate()
    assert np.array_equal(leiden(graph, resolution=0.2, seed=3), labels)
    assert python_random.getstate() == state
    assert len(np.unique(leiden(graph, resolution=5.0))) > 4


def test_leiden_says_when_igraph_is_absent(monkeypatch):
    monkeypatch.setattr(graph_module, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match="igraph") as caught:
        leiden(csr_matrix((3, 3)))
    assert "musegnn[bio]" in caught.value.fix
