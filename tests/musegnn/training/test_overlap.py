"""Neighbourhood overlaps against set arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from musegnn.training.overlap import Overlaps
from musegnn.training.prepare import prepare


def neighbourhoods(graph):
    sets = {key: set() for key in graph.keys.tolist()}
    ends = zip(graph.edges.rows, graph.edges.indices, graph.edges.z, strict=True)
    for a, b, z in ends:
        if graph.trainable[b]:
            sets[graph.keys[a]].add((graph.keys[b], z > 0))
    return sets


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_weights_are_the_overlaps_of_sets(atlas, share):
    graphs = prepare(*atlas(evaluation__holdout_genes=share)).graphs
    overlaps = Overlaps(graphs)
    for i, a in enumerate(graphs):
        for j, b in enumerate(graphs):
            if i == j:
                continue
            found = overlaps.pair(i, j)
            sets_a, sets_b = neighbourhoods(a), neighbourhoods(b)
            can_a, can_b = set(a.keys[a.trainable].tolist()), set(b.keys[b.trainable].tolist())
            shared = sorted(can_a & can_b)
            assert a.keys[found.rows_i].tolist() == b.keys[found.rows_j].tolist() == shared
            expected = [
                len(sets_a[g] & sets_b[g]) / len(sets_a[g] | sets_b[g]) if sets_a[g] | sets_b[g] else 0.0
                for g in shared
            ]
            np.testing.assert_array_equal(found.weight, expected)
            assert max(expected) > 0
            ends = zip(a.edges.rows, a.edges.indices, a.edges.z, strict=True)
            positive = {a.keys[x] for x, y, z in ends if z > 0 and a.trainable[y]}
            assert set(a.keys[found.pool_i].tolist()) == (can_a - can_b) & positive


def test_both_orders_of_a_pair_agree(atlas):
    overlaps = Overlaps(prepare(*atlas()).graphs)
    forth, back = overlaps.pair(0, 2), overlaps.pair(2, 0)
    np.testing.assert_array_equal(forth.rows_i, back.rows_j)
    np.testing.assert_array_equal(forth.weight, back.weight)
    np.testing.assert_array_equal(forth.pool_i, back.pool_j)


def test_datasets_without_a_common_gene(atlas):
    store, config = atlas(2)
    record = store.records["lung-b"]
    record.genes.gene[:] = [f"X{k}" for k in range(len(record.genes))]
    found = Overlaps(prepare(store, config).graphs).pair(0, 1)
    assert found.rows_i.shape == found.rows_j.shape == found.weight.shape == (0,)
    assert len(found.pool_i) > 0


def test_pairs_that_are_not_kept_are_computed_again(atlas, monkeypatch):
    graphs = prepare(*atlas()).graphs
    kept = Overlaps(graphs)
    one = kept.pair(0, 1)
    assert kept.pair(0, 1) is one
    monkeypatch.setattr("musegnn.training.overlap.KEEP_BYTES", one.nbytes + 1)
    few = Overlaps(graphs)
    first = few.pair(0, 1)
    few.pair(2, 3)
    again = few.pair(0, 1)
    assert again is not first
    np.testing.assert_array_equal(again.weight, one.weight)
