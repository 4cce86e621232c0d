"""The comparison of models: what is gathered over jobs, the pooled space, and the control of held-out edges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.stats import wilcoxon

from benchmarks.cases import ablation, quality
from benchmarks.quality.completion import completed
from benchmarks.quality.scores import OURS, Job, Result, pooled_over_datasets
from benchmarks.quality.table import best_of_sizes, gather
from musegnn.evaluation.edges import held_out_auc
from musegnn.evaluation.task import DatasetTask, HeldOutPairs


def job(seed, label=OURS):
    return Job("group", seed, Path(), {}, rivals=True, label=label)


def test_results_are_gathered_over_seeds():
    random = np.random.default_rng(0)
    sets = [{f"s{k}": float(v) for k, v in enumerate(random.random(9))} for _ in range(4)]
    near, far = np.tile(np.arange(10), (20, 1)), np.tile(np.arange(10, 20), (20, 1))
    results = [
        Result({OURS: {"mrr": 0.3}, "rival_8": {"mrr": 0.1}}, {OURS: sets[0], "rival_8": sets[1]}, {OURS: near}),
        Result({OURS: {"mrr": 0.2}, "rival_8": {"mrr": 0.2}}, {OURS: sets[2], "rival_8": sets[3]}, {OURS: far}),
    ]
    table = gather([job(0), job(1)], results)
    assert table["group", OURS]["mrr"] == [0.3, 0.2]
    assert table["group", OURS]["stability"] == [0.0]
    ours, theirs = (np.mean([[s[k] for k in sets[0]] for s in pair], axis=0) for pair in (sets[::2], sets[1::2]))
    assert table["group", "rival"]["function_p"] == [pytest.approx(wilcoxon(ours - theirs).pvalue)]


def test_one_seed_has_no_stability():
    near = np.tile(np.arange(10), (20, 1))
    table = gather([job(0)], [Result({OURS: {"mrr": 0.3}}, {}, {OURS: near})])
    assert table == {("group", OURS): {"mrr": [0.3]}}


def test_the_best_size_of_a_rival_is_kept():
    table = {
        ("g", "pca_16"): {"mrr": [0.1, 0.3]},
        ("g", "pca_32"): {"mrr": [0.25, 0.25]},
        ("g", "gemini_32"): {"function": [0.6]},
        ("g", "gemini_64"): {"function": [0.5]},
        ("g", "z_completion_10"): {"edges_cosine_positive": [0.7]},
        ("g", "z_completion_30"): {"edges_cosine_positive": [0.8]},
        ("g", "coexpression_z"): {"mrr": [0.2]},
        ("g", "gss_16"): {"modules": [0.6]},
        ("g", "gss_32"): {"modules": [0.7]},
    }
    best = best_of_sizes(table)
    assert best["g", "pca"] == {"mrr": [0.25, 0.25]}
    assert best["g", "gemini"] == {"function": [0.6]}
    assert best["g", "z_completion"] == {"edges_cosine_positive": [0.8]}
    assert best["g", "coexpression_z"] == {"mrr": [0.2]}
    assert best["g", "gss"] == {"modules": [0.6]}  # nothing decides, so the first stays


def make_task(name, keys, pairs=None):
    none = np.zeros(0, dtype=np.int64)
    empty = HeldOutPairs(rows=none, cols=none, sign=none.astype(np.int8), other_rows=none, other_cols=none)
    return DatasetTask(
        name=name,
        modality="scrna",
        tissue="lung",
        species="human",
        gene_key=np.array(keys),
        held_out_gene=np.zeros(len(keys), dtype=bool),
        indptr=np.zeros(len(keys) + 1, dtype=np.int64),
        indices=none.astype(np.int32),
        pairs=pairs or empty,
    )


def test_pooled_vectors_are_means_of_unit_vectors():
    tasks = [make_task("a", ["x", "y"]), make_task("b", ["z", "x"])]
    vectors = {"a": np.array([[2.0, 0.0], [0.0, 3.0]]), "b": np.array([[5.0, 0.0], [0.0, 4.0]])}
    found = pooled_over_datasets(tasks, vectors)
    np.testing.assert_allclose(found["a"], [[0.5, 0.5], [0.0, 1.0]])
    np.testing.assert_allclose(found["b"], [[1.0, 0.0], [0.5, 0.5]])


def hidden_pairs(n, random):
    rows, cols = np.triu_indices(n, 1)
    chosen = random.permutation(len(rows))[:400]
    return rows[chosen], cols[chosen]


@pytest.mark.parametrize("planted", [True, False])
def test_completion_finds_hidden_edges_of_planted_factors_alone(planted):
    random = np.random.default_rng(1)
    n = 120
    factors = random.normal(size=(n, 4))
    z = 6.0 * factors @ factors.T if planted else np.zeros((n, n))
    noise = random.normal(size=(n, n))
    z += np.triu(noise, 1) + np.triu(noise, 1).T
    rows, cols = hidden_pairs(n, random)
    order = np.argsort(z[rows, cols]) if planted else np.arange(len(rows))
    edges, others = order[300:], order[100:200]
    pairs = HeldOutPairs(
        rows=rows[edges],
        cols=cols[edges],
        sign=np.ones(len(edges), np.int8),
        other_rows=rows[others],
        other_cols=cols[others],
    )
    auc = held_out_auc(completed(csr_matrix(z), pairs, dim=4), pairs)["positive"]
    assert auc > 0.95 if planted else abs(auc - 0.5) < 0.1


def test_variants_differ_from_the_default_and_goals_name_rivals_of_the_table():
    assert all(ablation._changes())
    table = {("pbmc", name): {"mrr": [0.1, 0.1], "mrr_p": [0.01, 0.3]} for name in quality.RIVALS}
    table["pbmc", OURS] = {
        "mrr": [0.2, 0.3],
        "edges_cosine_positive": [0.8, 0.8],
        "rank_share": [0.5, 0.5],
        "function": [0.55, 0.57],
    }
    table["pbmc", "gemini"] = {"function": [0.6, 0.6], "function_p": [0.01]}
    found = {(m.shape, m.metric): m for m in quality.goals("pbmc", table)}
    margin = found["pbmc musegnn - published", "mrr margin"]
    assert margin.value == pytest.approx(0.15)
    assert margin.goal == ("value", ">=", pytest.approx(2 * np.std([0.2, 0.3], ddof=1)))
    assert "largest p over seeds 0.3" in margin.unit
    assert found["pbmc musegnn", "function: p of being worse"].value == 0.01
