"""Silent failures: each planted one is named, and a healthy run is not accused."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from musegnn.api import MuSeGNN
from musegnn.training.diagnostics import compare_pair, problems

N, DIM = 200, 32


def datasets(seed, *, noise, held_out_noise):
    """Return two datasets with the same genes, whose vectors agree up to noise."""
    random = np.random.default_rng(seed)
    keys = np.array([f"g{k:03}" for k in range(N)])
    trainable = np.arange(N) % 4 != 0
    first = random.normal(size=(N, DIM))
    second = first + np.where(trainable, noise, held_out_noise)[:, None] * random.normal(size=(N, DIM))
    graphs = [SimpleNamespace(name=name, keys=keys, trainable=trainable) for name in ("a", "b")]
    return graphs, (first, second)


def history(seed=0, *, noise=0.5, held_out_noise=0.5, rank=20.0, cosine=0.1):
    graphs, vectors = datasets(seed, noise=noise, held_out_noise=held_out_noise)
    space = {"kind": "space", "round": 10, "dataset": "a", "effective_rank": rank, "mean_cosine": cosine}
    return [space, compare_pair(*graphs, *vectors, 10), {"kind": "losses", "round": 10, "dataset": "a", "loss": 1.0}]


def test_ranks_are_those_of_all_genes():
    graphs, (first, second) = datasets(0, noise=2.0, held_out_noise=2.0)
    record = compare_pair(*graphs, first, second, 3)
    unit = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in (first, second)]
    cosine = unit[0] @ unit[1].T
    reciprocal = 1 / (1 + (cosine > np.diag(cosine)[:, None]).sum(axis=1))
    known = graphs[0].trainable
    np.testing.assert_allclose(record["anchor_mrr"], reciprocal[known].mean(), rtol=1e-12)
    np.testing.assert_allclose(record["held_out_mrr"], reciprocal[~known].mean(), rtol=1e-12)
    assert (record["n_anchors"], record["n_held_out"], record["round"]) == (150, 50, 3)


def test_a_healthy_run_is_not_accused():
    for seed in range(5):
        assert problems(history(seed), dim=DIM) == []


def test_each_failure_is_named_with_a_remedy():
    for settings, code in (
        ({"rank": 2.0}, "W501"),
        ({"cosine": 0.95}, "W501"),
        ({"held_out_noise": 1e6}, "W502"),
        ({"noise": 1e6, "held_out_noise": 1e6}, "W503"),
    ):
        found = problems(history(1, **settings), dim=DIM)
        assert [problem.code for problem in found] == [code]
        assert found[0].dataset == "a"
        assert str(found[0]).startswith(f"{code}: a: ")
        assert len(found[0].remedy) > 20


def test_old_failures_are_forgotten():
    old = [row | {"round": 2} for row in history(1, held_out_noise=1e6)]
    assert [p.code for p in problems(old, dim=DIM)] == ["W502"]
    assert problems([*old, *history(1)], dim=DIM) == []


def test_datasets_without_common_genes_are_not_compared():
    one, other = (
        SimpleNamespace(name=name, keys=np.array([f"{name}{k}" for k in range(5)]), trainable=np.ones(5, dtype=bool))
        for name in ("a", "b")
    )
    assert compare_pair(one, other, np.ones((5, 3)), np.ones((5, 3)), 1) is None


def test_training_watches_at_checkpoints_and_warns_once(atlas, caplog):
    store, config = atlas(2, training__rounds=5, training__checkpoint_every=2)
    model = MuSeGNN(store, config).train()
    watched = [row for row in model.history if row["kind"] == "watch"]
    assert sorted({row["round"] for row in watched}) == [2, 4, 5]
    assert {row["dataset"] for row in watched} == {"lung.a", "lung-b"}
    store, config = atlas(2, training__rounds=6, training__checkpoint_every=2, training__lr_shared=1e-9, model__dim=64)
    collapsed = MuSeGNN(store, config).train()
    told = [record.getMessage() for record in caplog.records if "W501" in record.getMessage()]
    named = [problem for problem in collapsed.problems() if problem.code == "W501"]
    assert len(told) == len(set(told)) >= len(named)
    assert {p.dataset for p in collapsed.problems()} <= {"lung.a", "lung-b"}
    reports = {report["dataset"]: report["problems"] for report in collapsed.graph_reports()}
    assert [line for lines in reports.values() for line in lines] == [
        str(p) for name in reports for p in collapsed.problems() if p.dataset == name
    ]
