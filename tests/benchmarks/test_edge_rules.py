from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix


def test_gate_of_the_case_holds():
    from benchmarks.cases.edge_rules import CASE

    for check in CASE.gate(quick=True):
        assert check.holds, check


def test_bernoulli_test_is_standard_normal_for_independent_genes():
    from benchmarks.edges.accessibility import bernoulli_test

    rng = np.random.default_rng(1)
    depth = rng.uniform(50.0, 1000.0, 4000)
    rate = np.exp(rng.uniform(np.log(2e-5), np.log(5e-3), 80))
    binary = (rng.random((4000, 80)) < -np.expm1(-depth[:, None] * rate)).astype(np.float64)
    z = bernoulli_test(binary, depth)[np.triu_indices(80, 1)]
    assert np.std(z) == pytest.approx(1.0, abs=4 / np.sqrt(2 * len(z)))  # 4 standard errors of a standard deviation
    assert abs(np.mean(z)) < 4 / np.sqrt(len(z))


def test_exchange_stays_within_groups_and_keeps_every_gene():
    from benchmarks.edges.stability import shuffle_within, strata

    rng = np.random.default_rng(2)
    counts = rng.poisson(2.0, (60, 5))
    group = strata(rng.random(60), 6)
    np.testing.assert_array_equal(np.bincount(group), np.full(6, 10))
    moved = shuffle_within(csr_matrix(counts), group, 0).toarray()
    assert (moved != counts).any()
    for code in range(6):
        for gene in range(5):
            np.testing.assert_array_equal(np.sort(moved[group == code, gene]), np.sort(counts[group == code, gene]))


def test_jaccard_counts_edges_of_equal_sign():
    from benchmarks.edges.stability import jaccard

    assert jaccard(np.array([-7, 3, 5]), np.array([3, 5, 7])) == pytest.approx(2 / 4)
    assert jaccard(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)) == 0.0


def test_without_shared_data_the_example_atlas_is_measured(monkeypatch, tmp_path):
    from benchmarks.edges.data import find_datasets

    monkeypatch.setenv("MUSEGNN_SHARED", str(tmp_path))
    names = [dataset.name for dataset in find_datasets()]
    assert "dlpfc_151673" in names
    assert len(names) == 7
