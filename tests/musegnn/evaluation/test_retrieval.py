"""Same-gene retrieval against brute force, planted identity and chance."""

from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musegnn.evaluation.dataset_pairs import PAIR_GROUPS, pair_group, shared_genes, visible_genes
from musegnn.evaluation.retrieval import retrieve_all, retrieve_pair, summarize_pairs
from musegnn.ranking import chance_level, retrieval_scores


@given(st.lists(st.integers(0, 2), min_size=1, max_size=6), st.data())
def test_ties_count_as_broken_at_random(values, data):
    target = data.draw(st.integers(0, len(values) - 1))
    k = data.draw(st.integers(1, 7))
    orders = list(permutations(range(len(values))))
    ranks = []
    for order in orders:
        ranked = sorted(range(len(values)), key=lambda c: (-values[c], order[c]))
        ranks.append(ranked.index(target) + 1)
    reciprocal, recall = retrieval_scores(np.array([values], dtype=float), np.array([target]), k=k)
    assert reciprocal[0] == pytest.approx(float(sum(Fraction(1, r) for r in ranks) / len(orders)), abs=1e-12)
    assert recall[0] == pytest.approx(sum(r <= k for r in ranks) / len(orders), abs=1e-12)


def test_scores_equal_sorting():
    random = np.random.default_rng(0)
    similarity = random.normal(size=(30, 50))
    target = random.integers(0, 50, 30)
    ranks = [list(np.argsort(-row)).index(t) + 1 for row, t in zip(similarity, target, strict=True)]
    reciprocal, recall = retrieval_scores(similarity, target)
    assert np.allclose(reciprocal, 1 / np.array(ranks), atol=1e-14)
    assert np.array_equal(recall, np.array(ranks) <= 10)


@pytest.mark.parametrize("n", [1, 5, 10, 250])
def test_constant_similarity_gives_exactly_chance(n):
    reciprocal, recall = retrieval_scores(np.zeros((3, n)), np.arange(3) % n)
    assert np.allclose(reciprocal, chance_level(n)[0], atol=1e-14)
    assert np.allclose(recall, chance_level(n)[1], atol=1e-14)


def test_chance_of_a_thousand_candidates():
    mrr, recall = chance_level(1000)
    assert mrr == pytest.approx(sum(1 / r for r in range(1, 1001)) / 1000, abs=1e-15)
    assert recall == 0.01


def two_datasets(make_graph, n=400, shared=300, hidden=100):
    keys_a = [f"s{i}" for i in range(shared)] + [f"a{i}" for i in range(n - shared)]
    keys_b = [f"b{i}" for i in range(n - shared)] + [f"s{i}" for i in range(shared)]
    held = {f"s{i}" for i in range(hidden)} | {"a0", "b1"}
    return make_graph("a", keys_a, hidden=held), make_graph("b", keys_b, hidden=held)


def test_null_gives_chance(make_graph):
    a, b = two_datasets(make_graph, n=600, shared=500, hidden=400)
    result = retrieve_pair(a, b, np.random.default_rng(5).normal(size=(600, 600)))
    scores = result.held_out
    spread = scores.reciprocal_rank.std() / np.sqrt(len(scores.key))
    assert abs(scores.reciprocal_rank.mean() - scores.chance_mrr) < 4 * spread
    assert abs(scores.recall.mean() - scores.chance_recall) < 4 * scores.recall.std() / np.sqrt(len(scores.key))


def test_planted_identity_is_found_and_sets_are_disjoint(make_graph):
    a, b = two_datasets(make_graph)
    truth = np.random.default_rng(0).normal(size=(600, 12))
    place = {key: i for i, key in enumerate(sorted({*a.keys.tolist(), *b.keys.tolist()}))}
    x, y = (truth[[place[k] for k in t.keys.tolist()]] for t in (a, b))
    unit_x, unit_y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y))
    result = retrieve_pair(a, b, unit_x @ unit_y.T)
    assert len(result.held_out.key) == 100
    assert len(result.anchors.key) == 200
    assert not set(result.held_out.key.tolist()) & set(result.anchors.key.tolist())
    for scores in (result.held_out, result.anchors):
        assert scores.reciprocal_rank.min() == 1.0
        assert scores.recall.min() == 1.0


def test_both_directions_count(make_graph):
    a = make_graph("a", ["x", "y", "p"], hidden={"x"})
    b = make_graph("b", ["x", "q"], hidden={"x"})
    similarity = np.array([[0.5, 0.4], [0.9, 0.0], [0.1, 0.2]])
    result = retrieve_pair(a, b, similarity)
    assert result.held_out.reciprocal_rank.tolist() == [(1 + 1 / 2) / 2]
    assert result.held_out.chance_mrr == pytest.approx((1.5 / 2 + (1 + 1 / 2 + 1 / 3) / 3) / 2)
    swapped = retrieve_pair(b, a, similarity.T)
    assert swapped.held_out.reciprocal_rank.tolist() == result.held_out.reciprocal_rank.tolist()


def test_candidates_are_all_genes_of_the_other_dataset(make_graph):
    a = make_graph("a", ["x"], hidden={"x"})
    b = make_graph("b", ["x", "only_b"], hidden={"x"})
    assert retrieve_pair(a, b, np.array([[0.1, 0.9]])).held_out.reciprocal_rank.tolist() == [(1 / 2 + 1) / 2]


@pytest.mark.parametrize(
    ("labels", "group"),
    [
        ({}, "within_tissue"),
        ({"tissue": "brain"}, "across_tissue"),
        ({"modality": "spatial"}, "across_modality"),
        ({"modality": "spatial", "tissue": "brain"}, "across_modality"),
        ({"species": "mouse", "modality": "spatial", "tissue": "brain"}, "across_species"),
    ],
)
def test_every_pair_is_in_one_group(make_graph, labels, group):
    one, two = make_graph("a", "xy"), make_graph("b", "xy", **labels)
    assert pair_group(one, two) == pair_group(two, one) == group
    assert group in PAIR_GROUPS


def test_shared_and_visible_genes_match_by_key(make_graph):
    a = make_graph("a", ["z", "x", "y"], hidden={"x"})
    b = make_graph("b", ["y", "w", "x", "z"], hidden={"x", "w"})
    in_a, in_b = shared_genes(a, b)
    assert a.keys[in_a].tolist() == b.keys[in_b].tolist() == ["x", "y", "z"]
    in_a, in_b = visible_genes(a, b)
    assert a.keys[in_a].tolist() == b.keys[in_b].tolist() == ["y", "z"]


def test_summary_weighs_pairs_equally_and_keeps_groups_apart(make_graph):
    graphs = [
        make_graph("a", ["x", "y"], hidden={"x", "y"}),
        make_graph("b", ["x", "y"], hidden={"x", "y"}),
        make_graph("c", ["x", "q"], hidden={"x"}, tissue="brain"),
        make_graph("d", ["n", "m"], species="mouse"),
    ]
    good = {("a", "b"): np.eye(2), ("a", "c"): np.array([[0.0, 1.0], [1.0, 0.0]])}
    pairs = retrieve_all(graphs, lambda a, b: good.get((a.name, b.name), np.zeros((2, 2))))
    assert [(p.first, p.second) for p in pairs] == [
        ("a", "b"),
        ("a", "c"),
        ("a", "d"),
        ("b", "c"),
        ("b", "d"),
        ("c", "d"),
    ]
    summary = summarize_pairs(pairs)
    assert summary["within_tissue"]["mrr"] == 1.0
    assert summary["across_tissue"]["mrr"] == pytest.approx((0.5 + 0.75) / 2)
    assert summary["overall"]["mrr"] == pytest.approx((1.0 + 0.5 + 0.75) / 3)
    assert summary["overall"]["mrr_by_query"] == pytest.approx((1.0 + 1.0 + 0.5 + 0.75) / 4)
    assert summary["overall"]["n_pairs"] == 3
    assert summary["overall"]["n_queries"] == 4
    assert summary["across_species"]["n_pairs"] == 0
    assert np.isnan(summary["across_species"]["mrr"])
    assert np.isnan(summarize_pairs(pairs, anchors=True)["overall"]["mrr"])


def test_wrong_similarities_are_refused(make_graph):
    a, b = make_graph("a", "xy"), make_graph("b", "xyz")
    with pytest.raises(ValueError, match=r"a, b: expected a finite similarity of shape \(2, 3\)"):
        retrieve_pair(a, b, np.zeros((3, 2)))
    with pytest.raises(ValueError, match="1 values not finite"):
        retrieve_pair(a, b, np.array([[0, 0, np.nan], [0, 0, 0.0]]))


def test_repeated_keys_are_refused(make_graph):
    with pytest.raises(ValueError, match="unique"):
        make_graph("a", ["x", "x"])
