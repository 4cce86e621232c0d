"""The paired test: what it reports, what it finds, and how often it cries wolf."""

import numpy as np
import pytest

from musegnn.evaluation.compare import compare_retrieval
from musegnn.evaluation.retrieval import retrieve_all, summarize_pairs


def noisy(vectors, strength, seed):
    random = np.random.default_rng(seed)
    x = {name: v + strength * random.normal(size=v.shape) for name, v in vectors.items()}
    x = {name: v / np.linalg.norm(v, axis=1, keepdims=True) for name, v in x.items()}
    return lambda a, b: x[a.name] @ x[b.name].T


def test_difference_is_the_difference_of_the_summaries(make_atlas):
    graphs, vectors = make_atlas()
    good, bad = (retrieve_all(graphs, noisy(vectors, s, 1)) for s in (0.3, 2.0))
    result = compare_retrieval(good, bad)
    assert result is not None
    expected = summarize_pairs(good)["overall"]["mrr"] - summarize_pairs(bad)["overall"]["mrr"]
    assert result.difference == pytest.approx(expected, abs=1e-12)
    assert result.verdict == "better"
    assert 0 < result.low < result.difference < result.high
    assert result.p_value < 0.001
    assert result.n_genes == len({key for p in good for key in p.held_out.key.tolist()})
    back = compare_retrieval(bad, good)
    assert back is not None
    assert back.verdict == "worse"
    assert back.difference == pytest.approx(-expected, abs=1e-12)


def test_equal_models_are_tied(make_atlas):
    graphs, vectors = make_atlas()
    pairs = retrieve_all(graphs, noisy(vectors, 1.0, 1))
    result = compare_retrieval(pairs, pairs)
    assert result is not None
    assert (result.difference, result.low, result.high, result.p_value) == (0.0, 0.0, 0.0, 1.0)
    assert result.verdict == "tied"


def test_equally_good_models_differ_as_rarely_as_promised(make_atlas):
    p_values = []
    for seed in range(60):
        graphs, vectors = make_atlas(seed, n=50, pool=80, n_datasets=2)
        one, two = (retrieve_all(graphs, noisy(vectors, 1.0, 1000 * k + seed)) for k in (1, 2))
        result = compare_retrieval(one, two, seed=seed)
        assert result is not None
        p_values.append(result.p_value)
    # binomial(60, 0.05) exceeds 9 with probability 0.0007
    assert sum(p < 0.05 for p in p_values) <= 9
    assert 0.3 < np.mean(p_values) < 0.7


def test_no_held_out_genes_gives_no_comparison(make_graph):
    graphs = [make_graph("a", "xy"), make_graph("b", "xy")]
    pairs = retrieve_all(graphs, lambda a, b: np.eye(2))
    assert compare_retrieval(pairs, pairs) is None


def test_equal_seeds_give_equal_results(make_atlas):
    graphs, vectors = make_atlas()
    one, two = (retrieve_all(graphs, noisy(vectors, 1.0, k)) for k in (1, 2))
    assert compare_retrieval(one, two, seed=5) == compare_retrieval(one, two, seed=5)
