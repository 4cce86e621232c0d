"""Measures of a joint space against plain loops, on planted structures and on nothing."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from musegnn.evaluation.baselines.candidates import vector_candidate
from musegnn.evaluation.compare import compare_retrieval
from musegnn.evaluation.joint import conservation, islands, mixing, retrieve_jointly
from musegnn.evaluation.published_metrics import published_metrics
from musegnn.evaluation.retrieval import retrieve_all, summarize_pairs

LABELS = ({}, {}, {"tissue": "brain"}, {"tissue": "brain", "species": "mouse"})


def joint_mrr(graphs, vectors, *, anchors=False):
    return summarize_pairs(retrieve_jointly(graphs, vectors), anchors=anchors)["overall"]["mrr"]


def pair_mrr(graphs, vectors):
    return summarize_pairs(retrieve_all(graphs, vector_candidate("", vectors).similarity))["overall"]["mrr"]


def same_genes(make_graph, n=60, n_datasets=4):
    genes = [f"g{k}" for k in range(n)]
    return [make_graph(f"d{t}", genes, hidden=genes[::3], **LABELS[t]) for t in range(n_datasets)]


def random_rows(graphs, seed, dim=8):
    random = np.random.default_rng(seed)
    return {t.name: random.normal(size=(t.n_genes, dim)) for t in graphs}


@pytest.fixture
def few(make_graph):
    """Return three datasets of few genes whose vectors have few values, so that many cosines are equal."""
    random = np.random.default_rng(4)
    graphs = [
        make_graph(f"d{t}", random.permutation([f"g{k}" for k in range(9)])[:7], hidden={"g0", "g3", "g4"}, **LABELS[t])
        for t in range(3)
    ]
    return graphs, {t.name: random.integers(-1, 2, (7, 2)).astype(float) for t in graphs}


def pooled(graphs, vectors):
    rows = [(t.name, str(g), v) for t in graphs for g, v in zip(t.keys, vectors[t.name], strict=True)]
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


def corrected(rows, cosine, by, k=10):
    """Return similarities by the formulas of `musegnn.vectors`, from lists."""
    home = [d for d, _, _ in rows]
    places, names = range(len(rows)), sorted(set(home))
    near = [
        {d: np.mean(sorted(cosine[i][j] for j in places if j != i and home[j] == d)[-k:]) for d in names}
        for i in places
    ]
    typical = {(d, e): np.mean([near[i][e] for i in places if home[i] == d]) for d in names for e in names}
    if by == "balanced":
        return [
            [cosine[i][j] - (typical[home[i], home[j]] + typical[home[j], home[i]]) / 2 for j in places] for i in places
        ]
    return [[2 * cosine[i][j] - near[i][home[j]] - near[j][home[i]] for j in places] for i in places]


@pytest.mark.parametrize("by", ["cosine", "balanced", "csls"])
def test_joint_retrieval_equals_plain_loops(few, by):
    graphs, vectors = few
    rows, cosine = pooled(graphs, vectors)
    if by != "cosine":
        cosine = corrected(rows, cosine, by)
    found = retrieve_jointly(graphs, vectors, by=by, k=3)
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
            top = max(found.values())
            best = [j for j, c in found.items() if c >= top - 1e-9]
            taken = min(left, len(best))
            weight += taken * np.mean([label[rows[j][0]] != label[rows[i][0]] for j in best])
            left -= taken
            found = {j: c for j, c in found.items() if j not in best}
        others = sum(label[rows[j][0]] != label[rows[i][0]] for j in chosen)
        values.append(weight / min(k, len(chosen) - 1) / (others / (len(chosen) - 1)))
    return np.mean(values)


@pytest.mark.parametrize("k", [1, 5, 30])
def test_mixing_equals_plain_loops(few, k):
    graphs, vectors = few
    rows, cosine = pooled(graphs, vectors)
    names = {t.name: t.name for t in graphs}
    found = mixing(graphs, vectors, k=k)
    assert found["overall"] == pytest.approx(slow_mixing(rows, cosine, k, names, names))
    lung = slow_mixing(rows, cosine, k, names, {"d0", "d1"})
    assert found["within_tissue"] == pytest.approx(lung)
    assert found["tissues"] == {"lung": pytest.approx(lung)}
    assert np.isnan(found["across_modality"])
    assert np.isnan(found["across_species"])


def test_other_species_are_told_from_other_datasets(make_graph):
    graphs = same_genes(make_graph)
    vectors = random_rows(graphs, 0)
    rows, cosine = pooled(graphs, vectors)
    names = {t.name: t.name for t in graphs}
    expected = slow_mixing(rows, cosine, 30, {t.name: t.species for t in graphs}, names)
    assert mixing(graphs, vectors)["across_species"] == pytest.approx(expected)


def test_equal_copies_are_found_and_mixed(make_graph):
    graphs = same_genes(make_graph, n_datasets=3)
    x = np.random.default_rng(0).normal(size=(60, 8))
    vectors = {t.name: x for t in graphs}
    assert joint_mrr(graphs, vectors) == joint_mrr(graphs, vectors, anchors=True) == 1.0
    # both copies, then 28 places in which each dataset has a third
    assert mixing(graphs, vectors)["overall"] == pytest.approx((2 + 28 * 2 / 3) / 30 / (120 / 179))


def test_datasets_that_lie_apart_are_seen(make_graph):
    graphs = same_genes(make_graph)
    x = np.random.default_rng(0).normal(size=(60, 8))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    vectors = {t.name: np.hstack([x, np.tile(2 * np.eye(4)[k], (60, 1))]) for k, t in enumerate(graphs)}
    assert pair_mrr(graphs, vectors) == 1.0
    # all 59 other genes of its own dataset lie nearer to a gene than its copy
    assert joint_mrr(graphs, vectors) == pytest.approx(1 / 60)
    found = mixing(graphs, vectors)
    assert found["overall"] == found["within_tissue"] == found["across_species"] == 0.0
    assert found["tissues"] == {"brain": 0.0, "lung": 0.0}


def test_random_vectors_are_at_chance(make_graph):
    graphs = same_genes(make_graph)
    retrieved, mixed = [], []
    for seed in range(30):
        vectors = random_rows(graphs, seed)
        scores = summarize_pairs(retrieve_jointly(graphs, vectors))["overall"]
        retrieved.append(scores["mrr"] - scores["chance_mrr"])
        found = mixing(graphs, vectors)
        mixed.append([found[name] - 1 for name in ("overall", "within_tissue", "across_species")])
    assert scores["chance_mrr"] == pytest.approx(sum(1 / r for r in range(1, 238)) / 237)
    for values in (np.array(retrieved), *np.array(mixed).T):
        assert abs(values.mean()) < 4 * values.std(ddof=1) / 30**0.5


def test_rotation_and_length_of_rows_change_nothing(make_atlas):
    graphs, vectors = make_atlas(n=50, pool=70)
    random = np.random.default_rng(1)
    turn = np.linalg.qr(random.normal(size=(8, 8)))[0]
    turned = {name: random.uniform(0.1, 10, (len(x), 1)) * x @ turn for name, x in vectors.items()}
    assert joint_mrr(graphs, turned) == pytest.approx(joint_mrr(graphs, vectors), abs=1e-12)
    one, other = mixing(graphs, vectors), mixing(graphs, turned)
    assert one.pop("tissues") == pytest.approx(other.pop("tissues"), abs=1e-12)
    assert one == pytest.approx(other, abs=1e-12, nan_ok=True)


def slow_conservation(a, b, x, y, k):
    """Return mean AUROC and specificity of one direction."""
    unit_x, unit_y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y))
    row_x, row_y = ({g: i for i, g in enumerate(t.keys.tolist())} for t in (a, b))
    shared = [g for g in row_x if g in row_y]
    found = []
    for gene in [g for g in shared if not a.trainable[row_x[g]]]:
        order = sorted(shared, key=lambda g, q=gene: -(unit_x[row_x[g]] @ unit_x[row_x[q]]))
        near = [g for g in order if g != gene][:k]
        score = {}
        for asked in row_y:
            cosine = {g: unit_y[row_y[g]] @ unit_y[row_y[asked]] for g in shared if g != asked}
            label = [g in near for g in cosine]
            score[asked] = roc_auc_score(label, list(cosine.values()))
        true = score.pop(gene)
        found.append((true, np.mean([(s < true - 1e-12) + (abs(s - true) <= 1e-12) / 2 for s in score.values()])))
    return np.mean(found, axis=0)


def test_conservation_equals_plain_loops(make_graph):
    random = np.random.default_rng(2)
    genes = [f"g{k}" for k in range(30)]
    graphs = [make_graph(f"d{t}", random.permutation(genes)[:22], hidden=genes[::4], **LABELS[t]) for t in range(3)]
    vectors = random_rows(graphs, 0, dim=3)
    found, by_group = conservation(graphs, vectors, k=4), {}
    for i, j in ((0, 1), (0, 2), (1, 2)):
        a, b = graphs[i], graphs[j]
        x, y = vectors[a.name], vectors[b.name]
        both = (slow_conservation(a, b, x, y, 4) + slow_conservation(b, a, y, x, 4)) / 2
        by_group.setdefault("within_tissue" if (i, j) == (0, 1) else "across_tissue", []).append(both)
    by_group["overall"] = [*by_group["within_tissue"], *by_group["across_tissue"]]
    for group, values in by_group.items():
        assert [found[group]["auroc"], found[group]["specificity"]] == pytest.approx(np.mean(values, axis=0))
        assert found[group]["n_pairs"] == len(values)
    assert np.isnan(found["across_species"]["auroc"])


def test_conservation_finds_planted_neighborhoods_wherever_datasets_lie(make_graph):
    graphs = same_genes(make_graph)
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 8))
    turned = {t.name: x @ np.linalg.qr(random.normal(size=(8, 8)))[0] * 3 for t in graphs}
    for group, found in conservation(graphs, turned).items():
        if group != "across_modality":
            assert found["auroc"] == pytest.approx(1.0)
            assert found["specificity"] > 0.98
    assert joint_mrr(graphs, turned) < 0.2


def test_conservation_of_random_vectors_is_at_chance(make_graph):
    graphs = same_genes(make_graph, n_datasets=2)
    found = [conservation(graphs, random_rows(graphs, seed))["overall"] for seed in range(30)]
    for name in ("auroc", "specificity"):
        values = np.array([f[name] for f in found])
        assert abs(values.mean() - 0.5) < 4 * values.std(ddof=1) / 30**0.5
    constant = conservation(graphs, {t.name: np.ones((60, 2)) for t in graphs})["overall"]
    assert constant["auroc"] == constant["specificity"] == 0.5


def test_small_pairs_have_no_conservation(make_graph):
    graphs = same_genes(make_graph, n=11)
    assert np.isnan(conservation(graphs, random_rows(graphs, 0))["overall"]["auroc"])


def test_islands_tell_clusters_of_datasets_from_clusters_of_genes(make_graph):
    pytest.importorskip("igraph", reason="needs the extra `bio`")
    graphs = same_genes(make_graph, n=40)
    random = np.random.default_rng(0)
    noise = [0.01 * random.normal(size=(40, 40)) for _ in graphs]
    of_genes = {t.name: np.eye(40) + e for t, e in zip(graphs, noise, strict=True)}
    of_datasets = {t.name: np.eye(40)[k] + e for k, (t, e) in enumerate(zip(graphs, noise, strict=True))}
    genes, datasets = (
        islands(published_metrics(graphs, x, resolutions=(1.0, 2.0), seed=0)) for x in (of_genes, of_datasets)
    )
    assert genes["dataset_nmi"] < 0.1 < 0.6 < genes["identity_nmi"]
    assert datasets["dataset_nmi"] > 0.6
    assert datasets["identity_nmi"] < genes["identity_nmi"]
    assert np.isnan(islands({"resolutions": []})["dataset_nmi"])


def test_joint_results_can_be_compared(make_atlas):
    graphs, vectors = make_atlas(n=50, pool=70)
    good, bad = retrieve_jointly(graphs, vectors), retrieve_jointly(graphs, random_rows(graphs, 0))
    result = compare_retrieval(good, bad)
    assert result is not None
    assert result.verdict == "better"


def test_a_single_dataset_or_gene_has_nothing_to_mix(make_graph):
    assert retrieve_jointly([make_graph("a", "xy")], {"a": np.eye(2)}) == []
    assert np.isnan(mixing([make_graph("a", "xy")], {"a": np.eye(2)})["overall"])
    assert np.isnan(mixing([make_graph("a", "x")], {"a": np.eye(1)})["overall"])
    disjoint_datasets = [make_graph("a", "xy"), make_graph("b", "uv")]
    pair = retrieve_jointly(disjoint_datasets, {"a": np.eye(2), "b": np.eye(2)})[0]
    assert len(pair.held_out.key) == len(pair.anchors.key) == 0


@pytest.mark.parametrize("by", ["balanced", "csls"])
def test_corrections_find_copies_in_datasets_that_lie_apart(make_graph, by):
    graphs = same_genes(make_graph, n_datasets=3)
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 12))
    apart = 5 * np.eye(3).repeat(60, axis=0).reshape(3, 60, 3)  # an axis of each dataset's own
    vectors = {
        t.name: np.concatenate([x + 0.3 * random.normal(size=x.shape), axis], axis=1)
        for t, axis in zip(graphs, apart, strict=True)
    }
    found = summarize_pairs(retrieve_jointly(graphs, vectors, by=by))["overall"]["mrr"]
    assert joint_mrr(graphs, vectors) < 0.1
    assert found > 0.7


@pytest.mark.parametrize("by", ["balanced", "csls"])
def test_corrections_find_nothing_in_noise(make_graph, by):
    graphs = same_genes(make_graph, n=200)
    found = summarize_pairs(retrieve_jointly(graphs, random_rows(graphs, 0), by=by))["overall"]
    assert found["mrr"] == pytest.approx(found["chance_mrr"], rel=0.5)
    constant = {t.name: np.ones((t.n_genes, 4)) for t in graphs}
    equal = summarize_pairs(retrieve_jointly(graphs, constant, by=by))["overall"]
    assert equal["mrr"] == pytest.approx(equal["chance_mrr"])
