"""Node features: relations against loops, scaling, and dropout."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from musegnn.data_store.records import PairTable
from musegnn.model.features import NodeFeatures, Projection, Relations, drop, relations, vocabulary


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


def test_relations_are_unit_rows_of_statistics_in_vocabulary_order(pairs):
    random = np.random.default_rng(1)
    keys = np.array([f"g{k:02}" for k in random.permutation(12)])
    words = sorted([*keys[[0, 2, 3, 7, 11]].tolist(), "g001", "zzz"])
    hidden = np.array([3, 0]), np.array([8, 2])
    found = relations(pairs, hidden, keys, words)
    expected = np.zeros((12, len(words)))
    rows = np.repeat(np.arange(12), np.diff(pairs.indptr)).tolist()
    n_hidden = 0
    for a, b, value in zip(rows, pairs.indices.tolist(), pairs.z, strict=True):
        if {a, b} in ({3, 8}, {0, 2}):
            n_hidden += 1
        elif keys[b] in words:
            expected[a, words.index(keys[b])] = value
    assert n_hidden == 4
    norm = np.linalg.norm(expected, axis=1, keepdims=True)
    expected = np.divide(expected, norm, out=np.zeros_like(expected), where=norm > 0)
    scattered = np.zeros_like(expected)
    scattered[:, found.columns] = found.values
    np.testing.assert_allclose(scattered, expected, atol=1e-6)
    assert not expected[:, [words.index("g001"), words.index("zzz")]].any()


def test_the_vocabulary_is_what_two_datasets_may_share():
    keys = [np.array(["a", "b", "c"]), np.array(["d", "c", "b"])]
    trainable = [np.array([True, True, True]), np.array([True, True, False])]
    assert vocabulary(keys, trainable) == ["c"]
    assert vocabulary(keys[:1], trainable[:1]) == ["a", "b", "c"]


def test_projected_relations_are_a_shared_linear_map():
    projection = Projection(5, 3)
    projection.reset_parameters(torch.Generator().manual_seed(0))
    values = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    related = Relations(values=values, columns=np.array([1, 4]))
    features = NodeFeatures(related=related, n_cells=10, dim=3, dtype=torch.float64)
    expected = values.astype(np.float64) @ projection.weight.detach().numpy()[[1, 4]]
    np.testing.assert_allclose(features(projection.double()).detach(), expected, atol=1e-6)
    assert (features.width, features.n_profile) == (3, 0)


def test_blocks_are_scaled_to_their_own_fan_in():
    """A layer drawn for the joint width gives each block the variance that it has alone under its own fan-in."""
    random = np.random.default_rng(0)
    profile = random.normal(size=(6, 40)).astype(np.float32)
    values = np.eye(6, 5, dtype=np.float32)
    aligned = (random.normal(size=(6, 7)) / 7**0.5).astype(np.float32)
    related = Relations(values=values, columns=np.arange(5))
    features = NodeFeatures(
        profile=profile, aligned=aligned, related=related, n_cells=1000, dim=10, dtype=torch.float64
    )
    projection = Projection(5, 10).double()
    projection.reset_parameters(torch.Generator().manual_seed(0))
    x = features(projection).detach().numpy()
    assert x.shape == (6, features.width) == (6, 57)
    drawn_for_width = 1 / (3 * features.width)
    np.testing.assert_allclose((x[:, :40] ** 2).sum(1) * drawn_for_width, (profile**2).sum(1) / (3 * 1000), rtol=1e-5)
    np.testing.assert_allclose((x[:, 40:47] ** 2).sum(1) * drawn_for_width, (aligned**2).sum(1) / 3, rtol=1e-5)
    own = (values @ projection.weight.detach().numpy()) ** 2
    np.testing.assert_allclose((x[:, 47:] ** 2).sum(1) * drawn_for_width, own.sum(1) / (3 * 10), rtol=1e-5)


def test_a_whole_profile_is_left_as_it_is():
    profile = np.random.default_rng(0).normal(size=(6, 40)).astype(np.float32)
    features = NodeFeatures(profile=profile, n_cells=40, dim=10, dtype=torch.float32)
    np.testing.assert_array_equal(features(None), profile)


def test_dropped_features_are_a_function_of_the_generator():
    x = torch.ones(100, 50)
    one, two = (drop(x, 0.25, torch.Generator().manual_seed(3)) for _ in range(2))
    torch.testing.assert_close(one, two, rtol=0, atol=0)
    assert set(one.unique().tolist()) == {0.0, float(torch.tensor(1 / 0.75))}
    assert abs(float((one == 0).float().mean()) - 0.25) < 0.03
    assert drop(x, 0.0, torch.Generator()) is x
