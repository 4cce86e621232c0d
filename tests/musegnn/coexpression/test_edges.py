from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr
from scipy.stats import false_discovery_control

from musegnn.coexpression import edges as edge_rules
from musegnn.coexpression.edges import critical_z, edge_features, edges_from_mask, select_edges, strict_cutoff
from musegnn.config import EdgeConfig
from musegnn.data_store.records import PairTable
from musegnn.errors import GraphError


def table(z: np.ndarray, z_store: float = 1.96) -> PairTable:
    """Store a symmetric matrix of statistics as the build does."""
    n = len(z)
    keep = (np.abs(z) >= z_store) & ~np.eye(n, dtype=bool)
    indptr = np.concatenate([[0], np.cumsum(keep.sum(1))]).astype(np.int64)
    rows, columns = np.nonzero(keep)
    upper = np.abs(z[np.triu_indices(n, 1)])
    upper = upper[np.isfinite(upper)]
    return PairTable(
        indptr=indptr,
        indices=columns.astype(np.int32),
        z=z[rows, columns].astype(np.float32),
        estimate=np.tanh(z[rows, columns] / 10).astype(np.float32),
        n_tests=len(upper),
        z_store=z_store,
        histogram=np.bincount(np.minimum((upper / 0.05).astype(int), 800), minlength=801).astype(np.int64),
    )


def statistics(seed: int, n: int, share: float, effect: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, n)) + effect * rng.choice([-1, 1], (n, n)) * (rng.random((n, n)) < share)
    z = np.triu(z, 1).astype(np.float32).astype(np.float64)
    return z + z.T


def dense(edges) -> np.ndarray:
    out = np.zeros((edges.n_genes, edges.n_genes), dtype=bool)
    out[edges.rows, edges.indices] = True
    return out


def test_critical_z_is_the_quantile():
    for p in (1e-300, 1e-12, 0.005, 0.5, 1.0):
        assert 2 * ndtr(-critical_z(p)) == pytest.approx(p, rel=1e-9)
    assert critical_z(0.005) == pytest.approx(2.8070337683438042, abs=1e-15)
    with pytest.raises(ValueError, match="in \\(0, 1\\]"):
        critical_z(0.0)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000), st.integers(4, 40), st.floats(0.0, 1.0), st.floats(0.0, 8.0), st.sampled_from(["bh", "by"])
)
def test_false_discovery_rules_equal_scipy(seed, n, share, effect, rule):
    z = statistics(seed, n, share, effect)
    pairs = table(z)
    upper = np.triu_indices(n, 1)
    adjusted = false_discovery_control(2 * ndtr(-np.abs(z[upper])), method=rule)
    expected = np.zeros((n, n), dtype=bool)
    expected[upper] = adjusted <= 0.05
    expected |= expected.T
    if not expected.any():
        with pytest.raises(GraphError) as caught:
            select_edges(pairs, 1000, EdgeConfig(rule=rule))
        assert caught.value.code == "E270"
        return
    np.testing.assert_array_equal(dense(select_edges(pairs, 1000, EdgeConfig(rule=rule))), expected)


def test_bh_at_a_loose_rate_is_exact_or_refused():
    z = statistics(3, 60, 0.3, 6.0)
    upper = np.triu_indices(60, 1)
    outcomes = set()
    for fdr in np.linspace(0.02, 0.9, 45):
        adjusted = false_discovery_control(2 * ndtr(-np.abs(z[upper])), method="bh")
        lowest = np.abs(z[upper])[adjusted <= fdr].min()
        if lowest < 1.96 + 0.05 and fdr > 0.05:
            with pytest.raises(GraphError, match="E272"):
                select_edges(table(z), 1000, EdgeConfig(rule="bh", fdr=fdr))
            outcomes.add("refused")
        else:
            edges = select_edges(table(z), 1000, EdgeConfig(rule="bh", fdr=fdr))
            assert edges.n_edges == 2 * (adjusted <= fdr).sum()
            outcomes.add("exact")
    assert outcomes == {"refused", "exact"}


def test_pvalue_rule_and_looser_than_stored():
    z = statistics(1, 50, 0.1, 5.0)
    edges = select_edges(table(z), 500, EdgeConfig(rule="pvalue"))
    expected = (np.abs(z) >= critical_z(0.005)) & ~np.eye(50, dtype=bool)
    np.testing.assert_array_equal(dense(edges), expected)
    with pytest.raises(GraphError, match="E272"):
        select_edges(table(z), 500, EdgeConfig(rule="pvalue", p_value=0.2))


@pytest.mark.parametrize(("n_cells", "floor"), [(500, 1.0), (3000, 1.0), (6000, np.sqrt(2.0)), (12_000, 2.0)])
def test_default_rule_is_never_looser_than_the_published_one_nor_than_its_floor(n_cells, floor):
    z = statistics(2, 60, 0.5, 6.0)  # half of the pairs are real: Benjamini-Hochberg alone accepts p < 0.025
    pairs = table(z)
    plain = select_edges(pairs, n_cells, EdgeConfig(rule="bh"))
    assert plain.cutoff < critical_z(0.005)
    edges = select_edges(pairs, n_cells, EdgeConfig())
    assert edges.cutoff == pytest.approx(floor * critical_z(0.005))
    np.testing.assert_array_equal(dense(edges), np.abs(z) >= floor * critical_z(0.005))


def test_default_rule_is_bh_where_that_is_stricter_than_the_floor():
    z = statistics(2, 60, 0.02, 6.0)
    plain = select_edges(table(z), 1000, EdgeConfig(rule="bh"))
    assert plain.cutoff > critical_z(0.005)
    assert strict_cutoff(table(z), 1000, 0.05) == plain.cutoff


def test_default_rule_is_stable_when_cells_are_repeated():
    """z grows as sqrt(n): from 3000 cells on, repeating the same cells leaves the graph as it was."""
    z = statistics(4, 80, 0.4, 6.0)
    first = select_edges(table(z, z_store=0.0), 3001, EdgeConfig())
    for times in (2, 16):
        again = select_edges(table(z * np.sqrt(times), z_store=0.0), 3001 * times, EdgeConfig())
        np.testing.assert_array_equal(again.indices, first.indices)


def test_sparse_graphs_are_filled_up_to_two_edges_per_gene(monkeypatch):
    n = 200
    z = np.zeros((n, n))
    rows, columns = np.triu_indices(n, 1)
    z[rows[:300], columns[:300]] = np.linspace(2.85, 3.2, 300)  # above the published rule, below any BH cut
    z[rows[300], columns[300]] = -9.0
    z[rows[301:700], columns[301:700]] = 2.5
    z += z.T
    pairs = table(z)
    filled = select_edges(pairs, 500, EdgeConfig())
    assert (np.abs(pairs.z) >= strict_cutoff(pairs, 500, 0.05)).sum() == 2
    assert filled.mean_degree == 2.0
    strength = np.sort(np.abs(z[rows, columns]))[::-1]
    assert filled.cutoff == pytest.approx(strength[199], rel=1e-6)
    monkeypatch.setattr(edge_rules, "MIN_MEAN_DEGREE", 50.0)
    most = select_edges(pairs, 500, EdgeConfig())
    assert most.n_edges == 2 * 301  # never below the published rule
    assert select_edges(pairs, 500, EdgeConfig(rule="bh")).n_edges == 2
    z[np.abs(z) > 4] = 0.0  # where the rule finds nothing, nothing is filled up
    with pytest.raises(GraphError, match="E270"):
        select_edges(table(z), 500, EdgeConfig())


def test_positive_sign_and_properties():
    z = statistics(5, 40, 0.3, 6.0)
    both = select_edges(table(z), 800, EdgeConfig())
    positive = select_edges(table(z), 800, EdgeConfig(sign="positive"))
    assert positive.negative_share == 0.0
    assert both.negative_share == pytest.approx(1 - positive.n_edges / both.n_edges)
    assert both.density == pytest.approx(both.n_edges / (40 * 39))
    assert both.mean_degree == both.n_edges / 40
    np.testing.assert_array_equal(dense(positive), dense(both) & (z > 0))


@pytest.mark.parametrize("limit", [1, 3, 7])
def test_max_degree_keeps_the_strongest_of_either_end(limit):
    z = statistics(6, 30, 0.4, 6.0)
    full = dense(select_edges(table(z), 800, EdgeConfig()))
    mine = dense(select_edges(table(z), 800, EdgeConfig(max_degree=limit)))
    strength = np.where(full, np.abs(z), -1.0)
    top = np.argsort(-strength, axis=1, kind="stable")[:, :limit]
    chosen = np.zeros_like(full)
    np.put_along_axis(chosen, top, values=True, axis=1)
    chosen &= full
    np.testing.assert_array_equal(mine, chosen | chosen.T)


def strongest_of_either_end(z: np.ndarray, k: int, fdr: float = 0.05) -> np.ndarray:
    """Mark edges of ``top_k`` pair by pair, from its definition."""
    n = len(z)
    upper = np.triu_indices(n, 1)
    significant = np.zeros((n, n), dtype=bool)
    significant[upper] = false_discovery_control(2 * ndtr(-np.abs(z[upper]))) <= fdr
    significant |= significant.T
    kept = np.zeros((n, n), dtype=bool)
    for gene in range(n):
        partners = sorted((-abs(z[gene, other]), other) for other in np.flatnonzero(significant[gene]))
        for _, other in partners[:k]:
            kept[gene, other] = kept[other, gene] = True
    return kept


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 30), st.integers(1, 12), st.booleans())
def test_top_k_is_its_definition(seed, n, k, tied):
    z = statistics(seed, n, 0.5, 6.0)
    if tied:
        z = np.round(z)  # many equal strengths: the lower column goes first
    expected = strongest_of_either_end(z, k)
    config = EdgeConfig(rule="top_k", degree=k)
    if not expected.any():
        with pytest.raises(GraphError, match="E270"):
            select_edges(table(z), 1000, config)
        return
    edges = select_edges(table(z), 1000, config)
    found = dense(edges)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found, found.T)
    assert (
        np.diff(edges.indptr) >= np.minimum(k, (dense(select_edges(table(z), 1000, EdgeConfig(rule="bh")))).sum(1))
    ).all()
    assert edges.n_edges <= 2 * k * n


def test_top_k_and_degree_limit_and_sign_act_one_after_the_other():
    z = statistics(8, 40, 0.5, 6.0)
    wide = select_edges(table(z), 1000, EdgeConfig(rule="top_k", degree=39))
    assert wide.n_edges == select_edges(table(z), 1000, EdgeConfig(rule="bh")).n_edges
    positive = select_edges(table(z), 1000, EdgeConfig(rule="top_k", degree=5, sign="positive"))
    np.testing.assert_array_equal(dense(positive), strongest_of_either_end(z, 5) & (z > 0))
    narrow = select_edges(table(z), 1000, EdgeConfig(rule="top_k", degree=5, max_degree=2))
    assert (dense(narrow) <= strongest_of_either_end(z, 5)).all()
    assert narrow.n_edges <= 2 * 2 * 40


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 30), st.floats(0.01, 1.0))
def test_min_abs_est_is_its_definition(seed, n, least):
    z = statistics(seed, n, 0.5, 6.0)
    z[0] = z[:, 0] = np.where(z[0] == 0, 0, 9.0)
    pairs = table(z)
    absent = (pairs.indices == 0) | (np.repeat(np.arange(n), np.diff(pairs.indptr)) == 0)
    pairs.estimate[absent] = 0.0  # a gene of negative variance: strong z, no estimate
    upper = np.triu_indices(n, 1)
    significant = np.zeros((n, n), dtype=bool)
    significant[upper] = false_discovery_control(2 * ndtr(-np.abs(z[upper]))) <= 0.05
    large = np.abs(np.tanh(z / 10).astype(np.float32)) >= np.float32(least)
    expected = (significant | significant.T) & large
    expected[0] = expected[:, 0] = False
    config = EdgeConfig(rule="min_abs_est", min_abs_est=least)
    if not expected.any():
        with pytest.raises(GraphError, match="E270"):
            select_edges(pairs, 1000, config)
        return
    np.testing.assert_array_equal(dense(select_edges(pairs, 1000, config)), expected)


def test_min_abs_est_holds_when_cells_are_repeated():
    """The estimate does not grow with cells: only the false discovery rate admits more pairs."""
    z = statistics(4, 80, 0.4, 6.0)
    first = table(z, z_store=0.0)
    again = table(4.0 * z, z_store=0.0)
    again.estimate[:] = first.estimate
    config = EdgeConfig(rule="min_abs_est", min_abs_est=0.4)  # tanh(0.4) is reached by z of 4.2, above the cut of both
    np.testing.assert_array_equal(dense(select_edges(again, 16_000, config)), dense(select_edges(first, 1000, config)))


@pytest.mark.parametrize("rule", ["top_k", "min_abs_est"])
def test_new_rules_refuse_what_is_not_stored_and_name_what_is_missing(rule):
    z = statistics(3, 60, 0.3, 6.0)
    with pytest.raises(GraphError, match="E272"):
        select_edges(table(z), 1000, EdgeConfig(rule=rule, fdr=0.9))
    with pytest.raises(GraphError, match="no pair has a finite z"):
        select_edges(table(np.full((10, 10), np.nan)), 100, EdgeConfig(rule=rule))


def test_min_abs_est_names_the_largest_estimate():
    pairs = table(statistics(3, 60, 0.3, 6.0))
    with pytest.raises(GraphError, match=r"abs\(estimate\) >= 1, the largest abs\(estimate\) of these is 0\.\d+"):
        select_edges(pairs, 1000, EdgeConfig(rule="min_abs_est", min_abs_est=1.0))


def test_features():
    z = np.array([-3.0, 3.0, 0.0], dtype=np.float32)
    estimate = np.array([-0.5, 1.5, 0.0], dtype=np.float32)
    expected = np.array([[-0.5, -np.log(4) / np.log(11)], [1.0, np.log(4) / np.log(11)], [0.0, 0.0]])
    np.testing.assert_allclose(edge_features(z, estimate, 100), expected, rtol=1e-6)


def test_mask_must_be_symmetric():
    edges = select_edges(table(statistics(7, 30, 0.3, 6.0)), 800, EdgeConfig())
    keep = np.ones(edges.n_edges, dtype=bool)
    keep[0] = False
    with pytest.raises(ValueError, match="both directions"):
        edges_from_mask(edges, keep)
    with pytest.raises(ValueError, match="shape"):
        edges_from_mask(edges, keep[1:])
    none = edges_from_mask(edges, np.zeros(edges.n_edges, dtype=bool))
    assert none.n_edges == 0
    assert none.density == 0.0
    assert none.negative_share == 0.0


def test_empty_graph_names_rule_and_largest_z():
    z = np.zeros((10, 10))
    z[0, 1] = z[1, 0] = 2.5
    with pytest.raises(GraphError) as caught:
        select_edges(table(z), 100, EdgeConfig())
    assert caught.value.code == "E270"
    assert "`default`" in str(caught.value)
    assert "2.5" in str(caught.value)
    with pytest.raises(GraphError, match=r"below 0\.05"):
        select_edges(table(np.zeros((10, 10))), 100, EdgeConfig())
    with pytest.raises(GraphError, match="no pair has a finite z"):
        select_edges(table(np.full((10, 10), np.nan)), 100, EdgeConfig())
