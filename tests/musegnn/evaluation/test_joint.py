"""Measures of a joint space against plain loops, on planted structures and on nothing."""

from __future__ import annotations

import numpy as np
import pytest

from musegnn.evaluation.candidates import vector_candidate
from musegnn.evaluation.compare import compare_retrieval
from musegnn.evaluation.joint import mixing, retrieve_jointly
from musegnn.evaluation.retrieval import retrieve_all, summarize_pairs

LABELS = ({}, {}, {"tissue": "brain"}, {"tissue": "brain", "species": "mouse"})


def joint_mrr(tasks, vectors, *, anchors=False):
    return summarize_pairs(retrieve_jointly(tasks, vectors), anchors=anchors)["overall"]["mrr"]


def pair_mrr(tasks, vectors):
    return summarize_pairs(retrieve_all(tasks, vector_candidate("", vectors).similarity))["overall"]["mrr"]


def same_genes(make_task, n=60, n_datasets=4):
    genes = [f"g{k}" for k in range(n)]
    return [make_task(f"d{t}", genes, hidden=genes[::3], **LABELS[t]) for t in range(n_datasets)]


def random_rows(tasks, seed, dim=8):
    random = np.random.default_rng(seed)
    return {t.name: random.normal(size=(t.n_genes, dim)) for t in tasks}


@pytest.fixture
def few(make_task):
    """Return three datasets of few genes whose vectors have few values, so that many cosines are equal."""
    random = np.random.default_rng(4)
    tasks = [
        make_task(f"d{t}", random.permutation([f"g{k}" for k in range(9)])[:7], hidden={"g0", "g3", "g4"}, **LABELS[t])
        for t in range(3)
    ]
    return tasks, {t.name: random.integers(-1, 2, (7, 2)).astype(float) for t in tasks}


def pooled(tasks, vectors):
    rows = [(t.name, str(g), v) for t in tasks for g, v in zip(t.gene_key, vectors[t.name], strict=True)]
    length = [np.linalg.norm(v) or 1.0 for _, _, v in rows]
    cosine = [[float(u @ v) / a / b for (_, _, v), b in zip(rows, length, strict=True)]
              for (_, _, u), a in zip(rows, length, strict=True)]  # fmt: skip
    return rows, cosine


def slow_retrieval(rows, cosine, first, second, gene):
    """Return expected reciprocal rank, recall and chance of one direction, by listing all possible ranks."""
    query = next(i for i, (d, g, _) in enumerate(rows) if (d, g) == (first, gene))
    target = next(i for i, (d, g, _) in enumerate(rows) if (d, g) == (second, gene))
    others = [cosine[query][i] for i, (_, g, _) in enumerate(rows) if g != gene]
    above = sum(c > cosine[query][target] + 1e-9 for c in others)
    equal = sum(abs(c - cosine[query][target]) <= 1e-9 for c in others)
    ranks = range(above + 1, above + equal + 2)
    n = len(others) + 1
    chance = sum(1 / r for r in range(1, n + 1)) / n
    return np.mean([1 / r for r in ranks]), np.mean([r <= 3 for r in ranks]), chance


def test_joint_retrieval_equals_plain_loops(few):
    tasks, vectors = few
    rows, cosine = pooled(tasks, vectors)
    found = retrieve_jointly(tasks, vectors, k=3)
    assert [(p.first, p.second, p.group) for p in found] == [
        ("d0", "d1", "within_tissue"),
        ("d0", "d2", "across_tissue"),
        ("d1", "d2", "across_tissue"),
    ]
    for pair in found:
        for scores in (pair.held_out, pair.anchors):
            each = [
                [slow_retrieval(rows, cosine, *names, gene) for gene in scores.key.tolist()]
                for names in ((pair.first, pair.second), (pair.second, pair.first))
            ]
            reciprocal, recall, chance = np.mean(each, axis=0).T
            np.testing.assert_allclose(scores.reciprocal_rank, reciprocal, atol=1e-12)
            np.testing.assert_allclose(scores.recall, recall, atol=1e-12)
            assert scores.chance_mrr == pytest.approx(chance.mean())


def slow_mixing(rows, cosine, k, label, inside):
    """Return for each row the share of neighbours with another label over its expectation, ties at random."""
    chosen = [i for i, (d, _, _) in enumerate(rows) if d in inside]
    values = []
    for i in chosen:
        left, weight = min(k, len(chosen) - 1), 0.0
        found = {j: cosine[i][j] for j in chosen if j != i}
        while left:
            best = [j for j, c in found.items() if c >= max(found.values()) - 1e-9]
            taken = min(left, len(best))
            weight += taken * np.mean([label[rows[j][0]] != label[rows[i][0]] for j in best])
            left -= taken
            found = {j: c for j, c in found.items() if j not in best}
        others = sum(label[rows[j][0]] != label[rows[i][0]] for j in chosen)
        values.append(weight / min(k, len(chosen) - 1) / (others / (len(chosen) - 1)))
    return np.mean(values)


@pytest.mark.parametrize("k", [1, 5, 30])
def test_mixing_equals_plain_loops(few, k):
    tasks, vectors = few
    rows, cosine = pooled(tasks, vectors)
    names = {t.name: t.name for t in tasks}
    found = mixing(tasks, vectors, k=k)
    assert found["overall"] == pytest.approx(slow_mixing(rows, cosine, k, names, names))
    lung = slow_mixing(rows, cosine, k, names, {"d0", "d1"})
    assert found["within_tissue"] == pytest.approx(lung)
    assert found["tissues"] == {"lung": pytest.approx(lung)}
    assert np.isnan(found["across_modality"])
    assert np.isnan(found["across_species"])


def test_other_species_are_told_from_other_datasets(make_task):
    tasks = same_genes(make_task)
    vectors = random_rows(tasks, 0)
    rows, cosine = pooled(tasks, vectors)
    names = {t.name: t.name for t in tasks}
    expected = slow_mixing(rows, cosine, 30, {t.name: t.species for t in tasks}, names)
    assert mixing(tasks, vectors)["across_species"] == pytest.approx(expected)


def test_equal_copies_are_found_and_mixed(make_task):
    tasks = same_genes(make_task, n_datasets=3)
    x = np.random.default_rng(0).normal(size=(60, 8))
    vectors = {t.name: x for t in tasks}
    assert joint_mrr(tasks, vectors) == joint_mrr(tasks, vectors, anchors=True) == 1.0
    # both copies, then 28 places in which each dataset has a third
    assert mixing(tasks, vectors)["overall"] == pytest.approx((2 + 28 * 2 / 3) / 30 / (120 / 179))


def test_datasets_that_lie_apart_are_seen(make_task):
    tasks = same_genes(make_task)
    x = np.random.default_rng(0).normal(size=(60, 8))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    vectors = {t.name: np.hstack([x, np.tile(2 * np.eye(4)[k], (60, 1))]) for k, t in enumerate(tasks)}
    assert pair_mrr(tasks, vectors) == 1.0
    # all 59 other genes of its own dataset lie nearer to a gene than its copy
    assert joint_mrr(tasks, vectors) == pytest.approx(1 / 60)
    found = mixing(tasks, vectors)
    assert found["overall"] == found["within_tissue"] == found["across_species"] == 0.0
    assert found["tissues"] == {"brain": 0.0, "lung": 0.0}


def test_random_vectors_are_at_chance(make_task):
    tasks = same_genes(make_task)
    retrieved, mixed = [], []
    for seed in range(30):
        vectors = random_rows(tasks, seed)
        scores = summarize_pairs(retrieve_jointly(tasks, vectors))["overall"]
        retrieved.append(scores["mrr"] - scores["chance_mrr"])
        found = mixing(tasks, vectors)
        mixed.append([found[name] - 1 for name in ("overall", "within_tissue", "across_species")])
    assert scores["chance_mrr"] == pytest.approx(sum(1 / r for r in range(1, 238)) / 237)
    for values in (np.array(retrieved), *np.array(mixed).T):
        assert abs(values.mean()) < 4 * values.std(ddof=1) / 30**0.5


def test_rotation_and_length_of_rows_change_nothing(make_atlas):
    tasks, vectors = make_atlas(n=50, pool=70)
    random = np.random.default_rng(1)
    turn = np.linalg.qr(random.normal(size=(8, 8)))[0]
    turned = {name: random.uniform(0.1, 10, (len(x), 1)) * x @ turn for name, x in vectors.items()}
    assert joint_mrr(tasks, turned) == pytest.approx(joint_mrr(tasks, vectors), abs=1e-12)
    one, other = mixing(tasks, vectors), mixing(tasks, turned)
    assert one.pop("tissues") == pytest.approx(other.pop("tissues"), abs=1e-12)
    assert one == pytest.approx(other, abs=1e-12, nan_ok=True)


def test_joint_results_can_be_compared(make_atlas):
    tasks, vectors = make_atlas(n=50, pool=70)
    good, bad = retrieve_jointly(tasks, vectors), retrieve_jointly(tasks, random_rows(tasks, 0))
    result = compare_retrieval(good, bad)
    assert result is not None
    assert result.verdict == "better"


def test_a_single_dataset_or_gene_has_nothing_to_mix(make_task):
    assert retrieve_jointly([make_task("a", "xy")], {"a": np.eye(2)}) == []
    assert np.isnan(mixing([make_task("a", "xy")], {"a": np.eye(2)})["overall"])
    assert np.isnan(mixing([make_task("a", "x")], {"a": np.eye(1)})["overall"])
    strangers = [make_task("a", "xy"), make_task("b", "uv")]
    pair = retrieve_jointly(strangers, {"a": np.eye(2), "b": np.eye(2)})[0]
    assert len(pair.held_out.key) == len(pair.anchors.key) == 0
