from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from musegnn.coexpression import spectral
from musegnn.coexpression.edges import select_edges
from musegnn.coexpression.spectral import chance_edge, shared_part, truncated_moments
from musegnn.config import EdgeConfig
from musegnn.data_store.records import PairTable
from musegnn.errors import GraphError

Z_STORE = 1.96


def table(z: np.ndarray, z_store: float = Z_STORE) -> PairTable:
    """Store a symmetric matrix of statistics as the build does."""
    n = len(z)
    keep = (np.abs(z) >= z_store) & ~np.eye(n, dtype=bool)
    rows, columns = np.nonzero(keep)
    upper = np.abs(z[np.triu_indices(n, 1)])
    return PairTable(
        indptr=np.concatenate([[0], np.cumsum(keep.sum(1))]).astype(np.int64),
        indices=columns.astype(np.int32),
        z=z[rows, columns].astype(np.float32),
        estimate=np.zeros(len(rows), dtype=np.float32),
        n_tests=len(upper),
        z_store=z_store,
        histogram=np.bincount(np.minimum((upper / 0.05).astype(int), 800), minlength=801).astype(np.int64),
    )


def dense(edges) -> np.ndarray:
    out = np.zeros((edges.n_genes, edges.n_genes), dtype=bool)
    out[edges.rows, edges.indices] = True
    return out


def planted(seed: int, n: int, effect: float) -> tuple[np.ndarray, np.ndarray]:
    """Return noisy statistics and their expectation: two programmes, each with genes that go up and down."""
    rng = np.random.default_rng(seed)
    axis = rng.choice([-1.0, 0.0, 1.0], (n, 2), p=[0.2, 0.6, 0.2])
    expected = effect * axis @ axis.T
    noise = np.triu(rng.normal(size=(n, n)), 1)
    z = expected + noise + noise.T
    np.fill_diagonal(z, 0.0)
    np.fill_diagonal(expected, 0.0)
    return z.astype(np.float32).astype(np.float64), expected


@pytest.mark.parametrize("bound", [0.0, 0.5, 1.96, 4.0])
def test_what_chance_leaves_is_the_integral(bound):
    for power, moment in zip((2, 4), truncated_moments(bound), strict=True):
        tail, _ = quad(lambda z, power=power: z**power * norm.pdf(z), bound, 40.0)
        assert moment == pytest.approx(2 * tail, abs=1e-9)


@pytest.mark.parametrize(("n", "z_store"), [(100, 0.0), (200, Z_STORE), (400, Z_STORE)])
def test_spectrum_of_chance_ends_at_the_edge(n, z_store):
    ends = []
    for seed in range(20):
        noise = np.triu(np.random.default_rng(seed).normal(size=(n, n)), 1)
        noise = np.where(np.abs(noise) >= z_store, noise, 0.0)
        ends.extend(np.abs(np.linalg.eigvalsh(noise + noise.T)[[0, -1]]))
    edge, largest = chance_edge(n, z_store)
    # The mean of the Tracy-Widom law is 0.6 of this quantile below the edge, less than 4 % of it from N = 100 on; terms
    # of the next order in 1/N are no larger.
    assert 0.92 * edge < np.mean(ends) < edge
    assert np.mean(np.array(ends) > largest) <= 0.1


@pytest.mark.parametrize("z_store", [0.0, Z_STORE])
def test_shared_part_is_its_definition(z_store):
    z, _ = planted(0, 150, 1.0)
    pairs = table(z, z_store)
    kept = np.where(np.abs(z) >= z_store, z, 0.0)
    values, vectors = np.linalg.eigh(kept)
    second, fourth = truncated_moments(z_store)
    scale = np.sqrt(150 * second)
    edge = scale * (2 + (fourth / second**2 - 3) / 150)
    expected = np.zeros_like(z)
    for value, vector in zip(values, vectors.T, strict=True):
        if abs(value) > edge + scale * 2.0234 * 150 ** (-2 / 3):
            expected += np.sign(value) * np.sqrt(value**2 - edge**2) * np.outer(vector, vector)
    rows = np.repeat(np.arange(150), np.diff(pairs.indptr))
    found = shared_part(pairs)
    np.testing.assert_allclose(found, expected[rows, pairs.indices], atol=1e-9)  # 150 terms, values below 100
    mirrored = np.zeros_like(z)
    mirrored[rows, pairs.indices] = found
    np.testing.assert_array_equal(mirrored, mirrored.T)


def test_many_genes_take_the_iterative_path_to_the_same_end(monkeypatch):
    z, _ = planted(1, 300, 0.8)
    pairs = table(z)
    exact = shared_part(pairs)
    monkeypatch.setattr(spectral, "DENSE_GENES", 100)
    np.testing.assert_allclose(shared_part(pairs), exact, atol=1e-8)


def test_it_is_nearer_to_what_is_expected_than_z_is():
    z, expected = planted(2, 300, 0.8)
    pairs = table(z, 0.0)
    rows = np.repeat(np.arange(300), np.diff(pairs.indptr))
    target = expected[rows, pairs.indices]
    error = np.mean((shared_part(pairs) - target) ** 2)
    # A symmetric matrix of rank 2 has 2 N numbers; the noise of N^2/2 pairs shrinks to about 4/N of its variance 1.
    assert error < 3 * 4 / 300


def test_edges_are_the_pairs_that_are_explained_best():
    z, expected = planted(3, 300, 0.8)
    edges = select_edges(table(z), 1000, EdgeConfig(rule="shared_axes", degree=10))
    assert edges.mean_degree == pytest.approx(10.0, abs=2 / 300)
    found = dense(edges)
    np.testing.assert_array_equal(found, found.T)
    strongest = np.sort(np.abs(z[np.triu_indices(300, 1)]))[-1500]
    by_z = (np.abs(z) >= strongest) & ~np.eye(300, dtype=bool)
    agree = np.sign(z) == np.sign(expected)
    right, right_by_z = (agree & (expected != 0))[found].mean(), (agree & (expected != 0))[by_z].mean()
    assert right > right_by_z + 0.2
    fewer = dense(select_edges(table(z), 1000, EdgeConfig(rule="shared_axes", degree=4)))
    assert (fewer <= found).all()


def test_chance_gives_no_axis_and_no_graph():
    chance = []
    for seed in range(40):
        noise = np.triu(np.random.default_rng(seed).normal(size=(200, 200)), 1)
        chance.append(table(noise + noise.T))
    silent = [pairs for pairs in chance if not shared_part(pairs).any()]
    assert len(silent) >= 36  # either end passes its 99 % quantile in 2 % of cases: P(more than 4 of 40) = 0.1 %
    for pairs in silent:
        with pytest.raises(GraphError, match="no axis") as caught:
            select_edges(pairs, 1000, EdgeConfig(rule="shared_axes"))
        assert caught.value.code == "E270"


def test_tables_without_pairs_are_refused():
    with pytest.raises(GraphError, match="E270"):
        select_edges(table(np.zeros((10, 10))), 100, EdgeConfig(rule="shared_axes"))
