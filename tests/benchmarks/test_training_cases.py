"""The baselines of the training benchmarks compute what ours computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["overlap", "training_step"])
def test_gate_of_the_case_holds(name):
    from benchmarks.registry import load_cases

    checks = list(load_cases()[name].gate(quick=True))
    assert checks
    for check in checks:
        assert check.holds, check


def test_the_gate_sees_a_loss_that_differs():
    from benchmarks.cases.training_step import PUBLISHED, TOLERANCE
    from benchmarks.training import Workload, copy_weights, published_epoch

    work = Workload(2, 120, 40, 0.1)
    changed = {"published": PUBLISHED["published"] | {"diagonal": False, "false_negatives": False}}
    engine, loop = work.engine({}, changed), work.published()
    copy_weights(engine, loop)
    rows, published = engine.round(1), published_epoch(engine, loop, 1)
    for k, name in ((0, "reconstruction"), (2, "contrast")):
        assert max(abs(row[name] - losses[k]) for row, losses in zip(rows, published, strict=True)) > TOLERANCE
    assert rows[0]["similarity"] == pytest.approx(published[0][1], abs=TOLERANCE)  # before any step


def test_random_graphs_have_their_density_and_share_genes():
    from benchmarks.graphs import random_graphs

    one, other = random_graphs(2, 300, 0.1, n_pool=600, negative=0.3)
    for graph in (one, other):
        assert graph.edges.density == pytest.approx(0.1, rel=0.05)
        assert graph.edges.negative_share == pytest.approx(0.3, rel=0.1)
        dense = np.zeros((300, 300))
        dense[graph.edges.rows, graph.edges.indices] = graph.edges.z
        np.testing.assert_array_equal(dense, dense.T)
        assert not dense.diagonal().any()
    assert 110 < len(set(one.keys) & set(other.keys)) < 190
