"""The published metrics of a space against slow definitions, planted mixing and nulls."""

import json
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from benchmarks.peers import scib
from musegnn.evaluation import metrics
from musegnn.evaluation import published_metrics as published
from musegnn.evaluation.published_metrics import published_metrics
from musegnn.vectors import nearest_euclidean


@pytest.fixture
def cloud():
    random = np.random.default_rng(4)
    cluster = random.integers(0, 4, 160)
    x = random.normal(size=(160, 5)) + 3 * np.eye(4, 5)[cluster]
    dataset = random.integers(0, 3, 160)
    dataset[cluster == 3] = 1
    return x, dataset, cluster


def slow_silhouette(x, labels):
    values = []
    for i in range(len(x)):
        mean = {}
        for label in set(labels.tolist()):
            rows = [j for j in range(len(x)) if labels[j] == label and j != i]
            if rows:
                mean[label] = np.mean([np.linalg.norm(x[i] - x[j]) for j in rows])
        if labels[i] not in mean:
            values.append(0.0)
            continue
        a = mean.pop(labels[i])
        b = min(mean.values())
        values.append((b - a) / max(a, b))
    return np.array(values)


def test_asw_equals_the_definition(cloud):
    x, dataset, cluster = cloud
    expected = [np.mean(1 - np.abs(slow_silhouette(x[cluster == c], dataset[cluster == c]))) for c in range(3)]
    assert metrics.batch_silhouette(x, dataset, cluster) == pytest.approx(np.mean(expected), abs=1e-9)


def test_asw_of_mixed_and_of_separate_datasets():
    random = np.random.default_rng(0)
    x, dataset = random.normal(size=(2000, 4)), random.integers(0, 2, 2000)
    cluster = np.zeros(2000, int)
    assert metrics.batch_silhouette(x, dataset, cluster) > 0.97
    assert metrics.batch_silhouette(x + 100 * dataset[:, None], dataset, cluster) < 0.05
    assert np.isnan(metrics.batch_silhouette(x, dataset, dataset))
    assert np.isnan(metrics.batch_silhouette(x[:5], np.arange(5), cluster[:5]))


def slow_lisi(distances, labels, perplexity):
    """Solve for the bandwidth with a root finder, then sum the weights label by label."""
    from scipy.optimize import brentq

    def weights(beta):
        p = np.exp(-beta * (distances - distances.min()))
        return p / p.sum()

    def gap(log_beta):
        p = weights(np.exp(log_beta))
        p = p[p > 0]
        return -(p * np.log(p)).sum() - np.log(perplexity)

    p = weights(np.exp(brentq(gap, -15, 15, xtol=1e-13)))
    return 1 / sum(p[labels == v].sum() ** 2 for v in set(labels.tolist()))


def test_ilisi_equals_the_definition(cloud):
    x, dataset, _ = cloud
    distance, position = nearest_euclidean(x, 90)
    index = [slow_lisi(d, dataset[p], 30) for d, p in zip(distance, position, strict=True)]
    assert np.allclose(metrics.lisi(distance, dataset[position], perplexity=30), index, rtol=1e-8)
    expected = (np.median(index) - 1) / (3 - 1)
    assert metrics.integration_lisi(distance, position, dataset) == pytest.approx(expected, rel=1e-8)


def test_ilisi_of_mixed_and_of_separate_datasets():
    random = np.random.default_rng(0)
    x, dataset = random.normal(size=(3000, 3)), random.integers(0, 4, 3000)
    mixed = metrics.integration_lisi(*nearest_euclidean(x, 90), dataset)
    assert 0.8 < mixed <= 1.0
    assert metrics.integration_lisi(*nearest_euclidean(x + 50 * dataset[:, None], 90), dataset) == pytest.approx(
        0.0, abs=1e-9
    )
    assert np.isnan(metrics.integration_lisi(*nearest_euclidean(x, 90), np.zeros(3000, int)))


def test_rows_with_too_few_neighbours_count_as_unmixed():
    distance = np.array([[1.0, 2.0, 3.0], [1.0, np.inf, np.inf]])
    label = np.array([[0, 1, 2], [1, -1, -1]])
    values = metrics.lisi(distance, label, perplexity=2.0)
    assert values[0] > 1.5
    assert values[1] == 1.0
    assert np.array_equal(metrics.lisi(distance[1:], label[1:], perplexity=2.0), [1.0])


def test_lisi_of_equal_distances_counts_labels():
    label = np.array([[0] * 30 + [1] * 30 + [2] * 30])
    assert metrics.lisi(np.full((1, 90), 7.0), label, perplexity=30)[0] == pytest.approx(3.0, rel=1e-9)


def test_gc_equals_a_walk_through_each_cluster():
    random = np.random.default_rng(1)
    upper = np.triu(random.random((60, 60)) < 0.03, k=1)
    adjacency = upper | upper.T
    cluster = random.integers(0, 5, 60)
    shares = []
    for c in range(5):
        left, largest = set(np.flatnonzero(cluster == c).tolist()), 0
        size = len(left)
        while left:
            part = [left.pop()]
            for node in part:
                reached = [m for m in left if adjacency[node, m]]
                left.difference_update(reached)
                part.extend(reached)
            largest = max(largest, len(part))
        shares.append(largest / size)
    assert metrics.graph_connectivity(csr_matrix(adjacency.astype(float)), cluster) == pytest.approx(np.mean(shares))
    assert metrics.graph_connectivity(csr_matrix(np.ones((60, 60))), cluster) == 1.0


def slow_cgr(gene, cluster):
    total = 0.0
    for c in set(cluster.tolist()):
        members = [g for g, k in zip(gene.tolist(), cluster.tolist(), strict=True) if k == c]
        total += len(members) / len(gene) * (1 - len(set(members)) / len(members))
    return total


def test_cgr_equals_the_definition_and_its_bound_is_one_cluster():
    random = np.random.default_rng(2)
    gene = np.array([f"g{i}" for i in random.integers(0, 40, 200)])
    cluster = random.integers(0, 9, 200)
    assert metrics.common_gene_ratio(gene, cluster) == pytest.approx(slow_cgr(gene, cluster), abs=1e-12)
    one = np.zeros(200, int)
    assert metrics.common_gene_ratio(gene, one) == pytest.approx(metrics.common_gene_bound(gene), abs=1e-15)
    assert metrics.common_gene_ratio(gene, cluster) < metrics.common_gene_bound(gene)
    assert metrics.common_gene_ratio(gene, np.arange(200)) == 0.0


def test_label_information_tells_collapse_from_identity():
    gene = np.repeat([f"g{i}" for i in range(30)], 3)
    _, code = np.unique(gene, return_inverse=True)
    assert metrics.label_information(gene, code) == pytest.approx(1.0)
    assert metrics.label_information(gene, np.zeros(90, int)) == 0.0
    assert metrics.common_gene_ratio(gene, code) == metrics.common_gene_ratio(gene, np.zeros(90, int))


def slow_no(sets, dataset, cluster):
    total = 0.0
    for c in set(cluster.tolist()):
        rows = np.flatnonzero(cluster == c)
        values = []
        for a, b in permutations(rows.tolist(), 2):
            if dataset[a] != dataset[b]:
                union = sets[a] | sets[b]
                values.append(len(sets[a] & sets[b]) / len(union) if union else 0.0)
        total += len(rows) / len(dataset) * (np.mean(values) if values else 0.0)
    return total


def test_no_equals_the_definition(monkeypatch):
    random = np.random.default_rng(3)
    incidence = random.random((90, 25)) < 0.2
    incidence[:3] = False
    dataset, cluster = random.integers(0, 3, 90), random.integers(0, 5, 90)
    dataset[cluster == 4] = 2
    sets = [set(np.flatnonzero(row).tolist()) for row in incidence]
    matrix = csr_matrix(incidence)
    expected = slow_no(sets, dataset, cluster)
    assert metrics.neighborhood_overlap(matrix, dataset, cluster) == pytest.approx(expected, abs=1e-12)
    monkeypatch.setattr(metrics, "BLOCK_ROWS", 7)
    assert metrics.neighborhood_overlap(matrix, dataset, cluster) == pytest.approx(expected, abs=1e-12)


def test_no_is_one_for_equal_neighbourhoods_and_zero_for_disjoint():
    dataset, cluster = np.array([0, 1, 0, 1]), np.zeros(4, int)
    assert metrics.neighborhood_overlap(csr_matrix(np.ones((4, 6))), dataset, cluster) == 1.0
    assert metrics.neighborhood_overlap(csr_matrix(np.eye(4)), dataset, cluster) == 0.0
    assert metrics.neighborhood_overlap(csr_matrix(np.ones((4, 6))), np.zeros(4, int), cluster) == 0.0


def test_metrics_agree_with_scib_metrics():
    """Its values, kept in a file, are float32: they hold to six digits."""
    golden = json.loads(Path(__file__).with_name("scib_metrics.json").read_text())
    x, dataset, cluster = scib.case()
    distance, order = scib.neighbors(x)
    distance, order = distance[:, 1:], order[:, 1:]
    found = metrics.lisi(distance, dataset[order], perplexity=scib.NEIGHBORS // 3)
    indptr = np.arange(0, order.size + 1, scib.NEIGHBORS)
    graph = csr_matrix((np.ones(order.size), order.ravel(), indptr), shape=(scib.N, scib.N))
    assert metrics.batch_silhouette(x, dataset, cluster) == pytest.approx(golden["silhouette_batch"], rel=2e-6)
    assert np.median(found) == pytest.approx(golden["lisi_median"], rel=2e-6)
    assert metrics.integration_lisi(distance, order, dataset) == pytest.approx(golden["ilisi_knn"], rel=2e-6)
    connectivity = metrics.graph_connectivity(graph, cluster)
    assert connectivity == pytest.approx(golden["graph_connectivity"], rel=2e-6)
    assert connectivity < 1.0


def test_pairwise_metrics_are_those_of_the_pairs_alone(make_atlas):
    pytest.importorskip("igraph", reason="Leiden needs the extra `bio`")
    graphs, vectors = make_atlas(n=80, pool=100, n_datasets=3)
    found = published_metrics(graphs, vectors, resolutions=(1.0,), seed=0)
    alone = []
    for a, b in combinations(graphs, 2):
        two = published_metrics([a, b], vectors, resolutions=(1.0,), seed=0)
        assert two["subsets"]["pairwise"]["ilisi"] == pytest.approx(two["subsets"]["common"]["ilisi"])
        assert two["resolutions"][0]["pairwise"] == pytest.approx(two["resolutions"][0]["common"])
        alone.append(two["subsets"]["common"])
    pairwise = found["subsets"]["pairwise"]
    assert pairwise["n_rows"] == sum(one["n_rows"] for one in alone)
    assert pairwise["ilisi"] == pytest.approx(np.mean([one["ilisi"] for one in alone]))


def test_shared_genes_are_those_of_enough_datasets(make_atlas):
    graphs, vectors = make_atlas(n=80, pool=100, n_datasets=3)
    rows = {k: published_metrics(graphs, vectors, resolutions=(), seed=0, min_datasets=k)["subsets"] for k in (2, 3)}
    _, count = np.unique(np.concatenate([t.keys for t in graphs]), return_counts=True)
    assert rows[2]["shared"]["n_rows"] == count[count >= 2].sum()
    assert rows[3]["shared"] == rows[3]["common"]


def test_many_pairs_of_datasets_are_sampled(make_atlas, monkeypatch):
    graphs, vectors = make_atlas(n=80, pool=100, n_datasets=4)
    monkeypatch.setattr(published, "MAX_PAIRS", 2)
    one, other = (published_metrics(graphs, vectors, resolutions=(), seed=s)["subsets"]["pairwise"] for s in (0, 0))
    assert one == other
    monkeypatch.setattr(published, "MAX_PAIRS", 6)
    every = published_metrics(graphs, vectors, resolutions=(), seed=0)["subsets"]["pairwise"]
    assert every["n_rows"] > one["n_rows"] > 0
