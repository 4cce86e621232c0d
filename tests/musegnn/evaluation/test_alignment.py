"""The baselines: PCA, Procrustes, co-expression profiles and expression level on planted data and nulls."""

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.decomposition import PCA

from musegnn.evaluation.baselines import alignment
from musegnn.evaluation.baselines.candidates import baseline_candidates, vector_candidate
from musegnn.evaluation.dataset_pairs import visible_genes
from musegnn.evaluation.joint import retrieve_jointly
from musegnn.evaluation.retrieval import retrieve_all, summarize_pairs
from musegnn.vectors import unit_rows


def random_rotation(random, d):
    return np.linalg.qr(random.normal(size=(d, d)))[0]


def test_pca_equals_scikit_learn_up_to_sign():
    x = np.random.default_rng(0).normal(size=(50, 20)) * np.arange(1, 21)
    ours, theirs = alignment.pca_vectors(x, 6), PCA(6, svd_solver="full").fit_transform(x)
    sign = np.sign((ours * theirs).sum(axis=0))
    assert np.allclose(ours, theirs * sign, atol=1e-9)
    assert (ours[np.abs(ours).argmax(axis=0), np.arange(6)] > 0).all()


def test_pca_of_the_compressed_profile_is_pca_of_the_full_one():
    random = np.random.default_rng(0)
    full = random.normal(size=(12, 300))
    values, vectors = np.linalg.eigh(full @ full.T)
    assert np.allclose(alignment.pca_vectors(vectors * np.sqrt(values), 4), alignment.pca_vectors(full, 4), atol=1e-9)


def test_pca_pads_past_the_rank():
    x = np.random.default_rng(0).normal(size=(5, 3))
    assert alignment.pca_vectors(x, 8).shape == (5, 8)
    assert not alignment.pca_vectors(x, 8)[:, 3:].any()


def test_procrustes_recovers_a_planted_rotation():
    random = np.random.default_rng(0)
    x, rotation = random.normal(size=(40, 7)), random_rotation(random, 7)
    assert np.allclose(alignment.procrustes_rotation(x, x @ rotation), rotation, atol=1e-12)
    noisy = alignment.procrustes_rotation(x, x @ rotation + 0.05 * random.normal(size=x.shape))
    assert np.allclose(noisy @ noisy.T, np.eye(7), atol=1e-12)
    assert np.abs(noisy - rotation).max() < 0.05


def test_procrustes_is_optimal_among_rotations():
    random = np.random.default_rng(1)
    x, y = random.normal(size=(30, 5)), random.normal(size=(30, 5))
    best = np.linalg.norm(x @ alignment.procrustes_rotation(x, y) - y)
    assert all(best <= np.linalg.norm(x @ random_rotation(random, 5) - y) for _ in range(200))


def test_procrustes_without_anchors_changes_nothing():
    assert np.array_equal(alignment.procrustes_rotation(np.zeros((0, 3)), np.zeros((0, 3))), np.eye(3))


def rotated(graphs, vectors, seed):
    random = np.random.default_rng(seed)
    return {t.name: vectors[t.name] @ random_rotation(random, vectors[t.name].shape[1]) for t in graphs}


def test_alignment_finds_held_out_genes_after_planted_rotations(make_atlas):
    graphs, vectors = make_atlas(noise=0.02)
    turned = rotated(graphs, vectors, 1)
    pairs = retrieve_all(graphs, lambda a, b: alignment.aligned_similarity(a, b, turned[a.name], turned[b.name]))
    held_out = summarize_pairs(pairs)["overall"]
    assert held_out["n_queries"] > 20
    assert held_out["mrr"] > 0.98
    unaligned = summarize_pairs(retrieve_all(graphs, vector_candidate("", turned).similarity))["overall"]
    assert unaligned["mrr"] < 0.25


def test_alignment_uses_only_genes_that_training_may_see(make_atlas):
    graphs, vectors = make_atlas()
    a, b = graphs[0], graphs[1]
    before = alignment.aligned_similarity(a, b, vectors["d0"], vectors["d1"])
    in_a, _ = visible_genes(a, b)
    changed = vectors["d0"].copy()
    untouched = np.zeros(a.n_genes, bool)
    untouched[in_a] = True
    changed[~untouched] = np.random.default_rng(0).normal(size=changed[~untouched].shape)
    after = alignment.aligned_similarity(a, b, changed, vectors["d1"])
    assert np.array_equal(before[untouched], after[untouched])
    assert not np.allclose(before[~untouched], after[~untouched])


def test_consensus_recovers_rotations_through_a_chain(make_graph):
    """The first and the last dataset share no gene; only the middle one connects them."""
    random = np.random.default_rng(0)
    truth = random.normal(size=(90, 5))
    ranges = {"a": range(50), "b": range(25, 65), "c": range(50, 90)}
    graphs = [make_graph(name, [f"g{i}" for i in r], hidden={"g30", "g55"}) for name, r in ranges.items()]
    vectors = {name: truth[list(r)] @ random_rotation(random, 5) for name, r in ranges.items()}
    joint = alignment.consensus_alignment(graphs, vectors)
    placed = np.concatenate([joint[name] for name in ranges])
    expected = unit_rows(np.concatenate([truth[list(r)] for r in ranges.values()]))
    assert np.allclose(placed @ placed.T, expected @ expected.T, atol=1e-8)


def test_consensus_ignores_held_out_genes(make_atlas):
    graphs, vectors = make_atlas()
    changed = {name: x.copy() for name, x in vectors.items()}
    for t in graphs:
        changed[t.name][~t.trainable] *= -1
    before, after = (alignment.consensus_alignment(graphs, v) for v in (vectors, changed))
    for t in graphs:
        assert np.array_equal(before[t.name][t.trainable], after[t.name][t.trainable])


def planted_modules(make_graph, seed=0, *, shuffled=False):
    """Two datasets with the same 12 modules; a gene's estimates tell its modules."""
    random = np.random.default_rng(seed)
    loading = random.normal(size=(150, 12)) * (random.random((150, 12)) < 0.3)
    genes = [np.sort(random.permutation(150)[:110]) for _ in range(2)]
    hidden = {f"g{i}" for i in range(0, 150, 5)}
    graphs, estimates = [], {}
    for name, chosen in zip("ab", genes, strict=True):
        graphs.append(make_graph(name, [f"g{i}" for i in chosen], hidden=hidden))
        rows = loading[random.permutation(150)[:110]] if shuffled else loading[chosen]
        noise = 0.1 * random.normal(size=(110, 110))
        estimate = rows @ rows.T + noise + noise.T
        np.fill_diagonal(estimate, 0)
        estimates[name] = csr_matrix(estimate)
    return graphs, estimates


def test_coexpression_profile_finds_planted_modules(make_graph):
    graphs, estimates = planted_modules(make_graph)
    pairs = retrieve_all(graphs, lambda a, b: alignment.coexpression_similarity(a, b, estimates))
    assert summarize_pairs(pairs)["overall"]["mrr"] > 0.9


def test_coexpression_profile_of_unrelated_datasets_gives_chance(make_graph):
    scores = []
    for seed in range(12):
        graphs, estimates = planted_modules(make_graph, seed, shuffled=True)
        pairs = retrieve_all(graphs, lambda a, b, e=estimates: alignment.coexpression_similarity(a, b, e))
        scores.append(pairs[0].held_out)
    reciprocal = np.concatenate([s.reciprocal_rank for s in scores])
    assert abs(reciprocal.mean() - scores[0].chance_mrr) < 4 * reciprocal.std() / np.sqrt(len(reciprocal))


def test_coexpression_profile_reads_visible_columns_alone(make_graph):
    graphs, estimates = planted_modules(make_graph)
    a, b = graphs
    before = alignment.coexpression_similarity(a, b, estimates)
    in_a, _ = visible_genes(a, b)
    dense = estimates["a"].toarray()
    outside = np.setdiff1d(np.arange(a.n_genes), in_a)
    dense[:, outside] = 99.0
    after = alignment.coexpression_similarity(a, b, {"a": csr_matrix(dense), "b": estimates["b"]})
    assert np.array_equal(before, after)
    direct = np.array(
        [
            [
                x @ y / (np.linalg.norm(x) * np.linalg.norm(y))
                for y in estimates["b"].toarray()[:, visible_genes(a, b)[1]]
            ]
            for x in estimates["a"].toarray()[:, in_a]
        ]
    )
    assert np.allclose(before, direct, atol=1e-12)


def test_expression_level_compares_ranks(make_graph):
    a, b = make_graph("a", "xyz"), make_graph("b", "wxyz")
    mean = {"a": np.array([5.0, 1.0, 900.0]), "b": np.array([0.1, 2.0, 3.0, 4.0])}
    expected = -np.abs(np.array([2, 1, 3])[:, None] / 3 - np.array([1, 2, 3, 4])[None, :] / 4)
    assert np.allclose(alignment.expression_similarity(a, b, mean), expected, atol=1e-15)


def test_every_baseline_is_made(make_atlas):
    graphs, vectors = make_atlas()
    estimates = {t.name: csr_matrix(unit_rows(vectors[t.name]) @ unit_rows(vectors[t.name]).T) for t in graphs}
    baselines = baseline_candidates(
        graphs,
        profiles=vectors,
        estimates=estimates,
        statistics=estimates,
        mean_counts={t.name: np.arange(t.n_genes, dtype=float) for t in graphs},
        dims=(2, 4),
    )
    assert list(baselines) == [
        "pca_procrustes",
        "pca_pairwise",
        "coexpression_profile",
        "coexpression_z",
        "expression_level",
    ]
    for baseline in baselines.values():
        assert baseline.similarity(graphs[0], graphs[1]).shape == (graphs[0].n_genes, graphs[1].n_genes)
    chosen = baselines["pca_procrustes"].vectors
    assert chosen is not None
    scores = {}
    for dim in (2, 4):
        parts = {name: alignment.pca_vectors(x, dim) for name, x in vectors.items()}
        space = alignment.consensus_alignment(graphs, parts)
        scores[dim] = summarize_pairs(retrieve_jointly(graphs, space))["overall"]["mrr"]
    best = max(scores, key=scores.get)
    assert {name: x.shape for name, x in chosen.items()} == {t.name: (t.n_genes, best) for t in graphs}
    assert baselines["pca_procrustes"].description.startswith(f"{best} principal components")
    assert baselines["coexpression_profile"].vectors is None


def test_alignment_of_random_profiles_gives_chance(make_atlas):
    scores = []
    for seed in range(15):
        graphs, _ = make_atlas(seed, n=100)
        random = np.random.default_rng(seed)
        noise = {t.name: random.normal(size=(t.n_genes, 20)) for t in graphs}
        pairs = retrieve_all(graphs, lambda a, b, x=noise: alignment.aligned_similarity(a, b, x[a.name], x[b.name]))
        scores += [p.held_out for p in pairs]
    reciprocal = np.concatenate([s.reciprocal_rank for s in scores])
    assert len(reciprocal) > 900
    assert abs(reciprocal.mean() - scores[0].chance_mrr) < 4 * reciprocal.std() / np.sqrt(len(reciprocal))
