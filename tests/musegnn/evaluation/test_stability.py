"""Stability of neighbours: against scikit-learn, equal runs, rotated runs, and noise."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from musegnn.evaluation.stability import nearest_rows, neighbor_stability


def vectors(seed, *, n=300, dim=16):
    random = np.random.default_rng(seed)
    return {name: random.normal(size=(n, dim)) for name in ("a", "b")}


def test_neighbours_are_those_of_scikit_learn():
    space = vectors(0)
    pooled = np.concatenate(list(space.values()))
    finder = NearestNeighbors(n_neighbors=5, metric="cosine").fit(pooled)
    expected = np.sort(finder.kneighbors(return_distance=False), axis=1)
    np.testing.assert_array_equal(nearest_rows(space, k=5), expected)


def test_rotations_change_nothing_and_noise_everything():
    space, other = vectors(0), vectors(1)
    rotation, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(16, 16)))
    turned = {name: x @ rotation for name, x in space.items()}
    near = {name: x + 0.3 * other[name] for name, x in space.items()}
    runs = [nearest_rows(x) for x in (space, turned, near, other)]
    assert neighbor_stability(runs[:2]) == 1.0
    assert 0.2 < neighbor_stability([runs[0], runs[2]]) < 0.9
    assert neighbor_stability([runs[0], runs[3]]) == pytest.approx(10 / (2 * 600), abs=0.01)
    assert np.isnan(neighbor_stability(runs[:1]))


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="more than 10 rows, got 4"):
        nearest_rows(vectors(0, n=2))
