"""Relations to the anchor genes, against loops."""

from __future__ import annotations

import numpy as np
import pytest

from musegnn.data_store.records import PairTable
from musegnn.model import relational_features
from musegnn.model.relational_features import anchor_genes, relations


@pytest.fixture
def pairs():
    random = np.random.default_rng(0)
    upper = np.triu(random.random((12, 12)) < 0.5, 1)
    statistic = np.triu(random.normal(size=(12, 12)), 1)
    rows, columns = np.nonzero(upper | upper.T)
    z = (statistic + statistic.T)[rows, columns].astype(np.float32)
    return PairTable(
        indptr=np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=12))]).astype(np.int64),
        indices=columns.astype(np.int32),
        z=z,
        estimate=np.zeros_like(z),
        n_tests=66,
        z_store=0.0,
        histogram=np.zeros(801, dtype=np.int64),
    )


def test_relations_are_statistics_and_correlations_with_the_anchor_genes(pairs):
    random = np.random.default_rng(1)
    keys = np.array([f"g{k:02}" for k in random.permutation(12)])
    anchors = sorted([*keys[[0, 2, 3, 7, 11]].tolist(), "g001", "zzz"])
    profile = random.normal(size=(12, 9)).astype(np.float32)
    hidden = np.array([3, 0]), np.array([8, 2])
    found = relations(pairs, profile, hidden, keys, anchors)
    stored = np.zeros((12, 12))
    stored[np.repeat(np.arange(12), np.diff(pairs.indptr)), pairs.indices] = pairs.z
    centred = profile.astype(np.float64) - profile.astype(np.float64).mean(axis=0)
    expected = np.zeros((2, 12, len(anchors)))
    for a in range(12):
        for b in range(12):
            if a == b or keys[b] not in anchors or {a, b} in ({3, 8}, {0, 2}):
                continue
            anchor = anchors.index(keys[b])
            expected[0, a, anchor] = stored[a, b]
            lengths = np.linalg.norm(centred[a]) * np.linalg.norm(centred[b])
            expected[1, a, anchor] = centred[a] @ centred[b] / lengths
    norm = np.linalg.norm(expected, axis=2, keepdims=True)
    expected = np.divide(expected, norm, out=np.zeros_like(expected), where=norm > 0) / 2**0.5
    scattered = np.zeros((12, 2 * len(anchors)))
    scattered[:, found.columns] = found.values
    np.testing.assert_allclose(scattered, np.concatenate(expected, axis=1), atol=1e-6)
    assert keys[found.genes].tolist() == [anchors[k] for k in found.columns[: len(found.genes)]]
    assert not scattered[[3, 8], anchors.index(keys[3])].any()


def test_a_gene_without_variance_has_no_correlations(pairs):
    keys = np.array([f"g{k:02}" for k in range(12)])
    profile = np.random.default_rng(1).normal(size=(12, 5)).astype(np.float32)
    profile[4] = profile[np.arange(12) != 4].mean(axis=0)
    found = relations(pairs, profile, (np.zeros(0, dtype=np.int64),) * 2, keys, keys.tolist())
    assert np.isfinite(found.values).all()


def test_anchor_genes_are_what_two_datasets_may_share():
    keys = [np.array(["a", "b", "c"]), np.array(["d", "c", "b"])]
    trainable = [np.array([True, True, True]), np.array([True, True, False])]
    seen = [names[keep] for names, keep in zip(keys, trainable, strict=True)]
    assert anchor_genes(seen) == ["c"]
    assert anchor_genes(seen[:1]) == ["a", "b", "c"]


def test_blocks_of_genes_change_no_bit(pairs, monkeypatch):
    keys = np.array([f"k{i:02d}" for i in range(12)])
    profile = np.random.default_rng(2).normal(size=(12, 5)).astype(np.float32)
    hidden = np.array([0, 3, 7]), np.array([5, 4, 11])
    whole = relations(pairs, profile, hidden, keys, keys[::-2].tolist()[::-1])
    monkeypatch.setattr(relational_features, "BLOCK_ROWS", 5)
    found = relations(pairs, profile, hidden, keys, keys[::-2].tolist()[::-1])
    np.testing.assert_array_equal(found.values, whole.values)
    np.testing.assert_array_equal(found.columns, whole.columns)
