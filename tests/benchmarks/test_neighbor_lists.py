"""The comparison of rankings of nearest genes."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.cases import neighbors
from benchmarks.graphs import plain_graph


def graph_of(name, genes):
    return plain_graph(name, genes, trainable=np.arange(len(genes)) % 3 != 0)


def test_planted_datasets_pass_the_gate():
    assert all(check.holds for check in neighbors.CASE.gate(quick=True))


def test_related_rows_share_a_set(monkeypatch):
    monkeypatch.setattr(neighbors, "SET_SIZES", (2, 3))
    keys = np.array(["a", "b", "c", "a", "d", "e"])
    sets = {"one": ["a", "b"], "large": ["a", "b", "c", "d"], "small": ["c"], "other": ["c", "d", "z"]}
    known, share = neighbors.related(keys, sets)
    assert known.tolist() == [True, True, True, True, True, False]
    expected = [
        [any({x, y} <= set(sets[name]) for name in ("one", "other")) for y in keys.tolist()] for x in keys.tolist()
    ]
    np.testing.assert_array_equal(share, expected)


@pytest.mark.parametrize("by", neighbors.RANKINGS)
def test_vectors_of_a_process_are_related(by):
    random = np.random.default_rng(0)
    genes = [f"g{k}" for k in range(60)]
    graphs = [graph_of(name, genes) for name in ("a", "b")]
    process = np.repeat(np.eye(6), 10, axis=0)
    vectors = {t.name: process + 0.2 * random.normal(size=process.shape) for t in graphs}
    sets = {str(n): genes[10 * n : 10 * n + 10] for n in range(6)}
    noise = {t.name: random.normal(size=process.shape) for t in graphs}
    assert neighbors.score(graphs, vectors, sets, by)["related"] > 0.9
    found = neighbors.score(graphs, noise, sets, by)
    assert found["related"] == pytest.approx(9 / 59, abs=0.06)
    assert found["mixing"] == pytest.approx(1.0, abs=0.2)
