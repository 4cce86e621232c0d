"""Unit rows, nearest rows and corrected cosines against scikit-learn and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from musegnn import vectors
from musegnn.random import stream
from musegnn.vectors import (
    nearest,
    nearest_split,
    neighborhood_similarity,
    scale_locally,
    typical_similarity,
    unit_rows,
)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), points=st.integers(2, 90), dim=st.integers(2, 20), k=st.integers(1, 12))
def test_equals_scikit_learn(seed, points, dim, k):
    x = stream(seed, "points").normal(size=(points, dim))
    found = nearest(x, k)
    real = min(k, points - 1)
    cosine = unit_rows(x).astype(np.float64) @ unit_rows(x).astype(np.float64).T
    np.fill_diagonal(cosine, -np.inf)
    expected = -np.sort(-cosine, axis=1)[:, :real]
    np.testing.assert_allclose(found.score[:, :real], expected, atol=1e-6)
    chosen = np.take_along_axis(cosine, found.index[:, :real].astype(np.int64), axis=1)
    np.testing.assert_allclose(chosen, found.score[:, :real], atol=1e-6)
    assert (found.index[:, real:] == -1).all()
    assert np.isnan(found.score[:, real:]).all()
    if points > k:
        oracle = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(x)
        distance, _ = oracle.kneighbors()
        np.testing.assert_allclose(1.0 - found.score, distance, atol=2e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), points=st.integers(2, 80), groups=st.integers(1, 5), k=st.integers(1, 9))
def test_two_sides_together_are_the_nearest_of_all(seed, points, groups, k):
    rng = stream(seed, "points")
    x, group = rng.normal(size=(points, 6)), rng.integers(0, groups, points)
    inside, outside = nearest_split(x, group, k)
    for i in range(points):
        own, far = inside.index[i][inside.index[i] >= 0], outside.index[i][outside.index[i] >= 0]
        assert (group[own] == group[i]).all()
        assert i not in own
        assert (group[far] != group[i]).all()
        assert len(own) == min(k, (group == group[i]).sum() - 1)
        assert len(far) == min(k, (group != group[i]).sum())
    scores = np.sort(np.concatenate([inside.score, outside.score], axis=1), axis=1)  # NaN last
    all_scores = nearest(x, k).score
    merged = -np.sort(-np.nan_to_num(scores, nan=-2.0), axis=1)[:, :k]
    np.testing.assert_allclose(merged, np.nan_to_num(all_scores, nan=-2.0), atol=1e-6)


def test_blocks_do_not_change_the_answer(monkeypatch):
    x = stream(0, "points").normal(size=(101, 7))
    whole = nearest(x, 5)
    monkeypatch.setattr(vectors, "BLOCK_BYTES", 4 * 101 * 13)
    parts = nearest(x, 5)
    np.testing.assert_array_equal(whole.index, parts.index)
    np.testing.assert_allclose(whole.score, parts.score, atol=1e-6)


def test_ties_are_in_the_order_of_the_points():
    x = np.ones((6, 3))
    assert nearest(x, 3).index.tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2], [0, 1, 2]]


def test_a_zero_vector_is_at_right_angles_to_all():
    found = nearest([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]], 2)
    assert found.score[0].tolist() == [0.0, 0.0]
    assert found.score[1].tolist() == [0.0, -1.0]


@pytest.mark.parametrize(
    ("x", "group", "k", "what"),
    [
        ([[1.0, np.nan]], [0], 1, "finite"),
        ([1.0, 2.0], [0, 0], 1, "shape"),
        ([[1.0], [2.0]], [0], 1, "one group per row"),
        ([[1.0], [2.0]], [0, 0], 0, "at least 1"),
    ],
)
def test_wrong_input_is_refused(x, group, k, what):
    with pytest.raises(ValueError, match=what):
        nearest_split(x, group, k)


def slow_neighborhood(cosine, group, k):
    """Return r by sorting: the mean cosine of each row to its k nearest other rows of each group."""
    n, groups = len(cosine), range(max(group) + 1)
    found = np.zeros((n, len(groups)))
    for i in range(n):
        for g in groups:
            others = sorted((cosine[i][j] for j in range(n) if group[j] == g and j != i), reverse=True)[:k]
            found[i, g] = sum(others) / len(others) if others else 0.0
    return found


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), points=st.integers(2, 40), groups=st.integers(1, 4), k=st.integers(1, 12))
def test_corrected_cosines_equal_plain_loops(seed, points, groups, k):
    rng = stream(seed, "points")
    group = np.unique(rng.integers(0, groups, points), return_inverse=True)[1]
    unit = unit_rows(rng.integers(-1, 2, size=(points, 3)))  # many equal cosines, and rows of zeros
    cosine = unit @ unit.T
    slow = slow_neighborhood(cosine, group, k)
    near = neighborhood_similarity(unit, group, k=k)
    np.testing.assert_allclose(near, slow, atol=1e-12)
    rows, wanted = rng.permutation(points)[:3], np.array([group.max()])
    np.testing.assert_allclose(
        neighborhood_similarity(unit, group, rows=rows, groups=wanted, k=k), slow[rows][:, wanted], atol=1e-12
    )
    scaled = scale_locally(cosine[rows], near, group, rows)
    for at, i in enumerate(rows):
        for j in range(points):
            expected = 2 * cosine[i, j] - slow[i, group[j]] - slow[j, group[i]]
            assert scaled[at, j] == pytest.approx(expected, abs=1e-12)
    towards = np.array([[slow[group == a, b].mean() for b in range(max(group) + 1)] for a in range(max(group) + 1)])
    np.testing.assert_allclose(typical_similarity(unit, group, k=k), (towards + towards.T) / 2, atol=1e-12)
    one = typical_similarity(unit, group, groups=wanted, k=k)
    np.testing.assert_allclose(one, ((towards + towards.T) / 2)[wanted], atol=1e-12)


def test_blocks_do_not_change_corrections(monkeypatch):
    rng = stream(0, "points")
    unit, group = unit_rows(rng.normal(size=(101, 7))), rng.integers(0, 3, 101)
    whole = neighborhood_similarity(unit, group), typical_similarity(unit, group)
    monkeypatch.setattr(vectors, "BLOCK_BYTES", 8 * 101 * 13)
    parts = neighborhood_similarity(unit, group), typical_similarity(unit, group)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_csls_demotes_a_hub():
    """The direction that all rows have in common is nearer to them than their own copies are, but is no copy."""
    rng = stream(0, "points")
    latent, common = rng.normal(size=(100, 20)), np.full((100, 1), 4.5)
    queries = np.concatenate([latent, common], axis=1)
    copies = np.concatenate([latent + 1.5 * rng.normal(size=latent.shape), common], axis=1)
    copies[0, :20] = 0.0  # the hub
    unit, group, rows = unit_rows(np.concatenate([queries, copies])), np.repeat([0, 1], 100), np.arange(100)
    cosine = unit[rows] @ unit.T
    scaled = scale_locally(cosine, neighborhood_similarity(unit, group), group, rows)
    by_cosine, by_csls = (s[:, 100:].argmax(axis=1) for s in (cosine, scaled))
    assert (by_cosine == 0).sum() > 30
    assert (by_csls == 0).sum() < (by_cosine == 0).sum() / 4
    assert (by_csls == rows).sum() > (by_cosine == rows).sum() + 20


def test_the_balance_lets_rows_of_a_dataset_that_lies_apart_come_up():
    rng = stream(0, "points")
    group = np.repeat([0, 1], 60)
    latent = rng.normal(size=(60, 16))
    apart = 5.0 * np.eye(2)[group]  # an axis of each dataset's own
    x = np.concatenate([np.concatenate([latent, latent + 0.1 * rng.normal(size=latent.shape)]), apart], axis=1)
    copy = (np.arange(120) + 60) % 120
    unit = unit_rows(x, dtype=np.float32)
    typical = typical_similarity(unit, group)
    inside, outside = nearest_split(x, group, 3)
    within, across = nearest_split(x, group, 3, typical=typical)
    assert (inside.score[:, 0] > outside.score[:, 0]).all()
    assert (across.score[:, 0] > within.score[:, 0]).mean() > 0.95
    assert (across.index[:, 0] == copy).all()
    np.testing.assert_array_equal(within.index, inside.index)  # one number per pair of datasets changes no such order
    np.testing.assert_allclose(across.score + typical[group, 1 - group][:, None], outside.score, atol=1e-6)


@pytest.mark.parametrize("k", [0, -1])
def test_a_neighborhood_has_a_row(k):
    with pytest.raises(ValueError, match="at least 1"):
        neighborhood_similarity(np.eye(2), np.array([0, 1]), k=k)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_types_are_kept(dtype):
    unit = unit_rows([[3.0, 4.0], [0.0, 2.0]], dtype=dtype)
    group = np.array([0, 1])
    near = neighborhood_similarity(unit, group)
    assert unit.dtype == near.dtype == scale_locally(unit @ unit.T, near, group, np.arange(2)).dtype == dtype


def test_rows_of_any_size_get_length_one():
    x = np.array([[3e-162, 4e-162], [3.0, 4.0], [3e200, 4e200], [0.0, 0.0], [5e-324, 0.0]])
    expected = [[0.6, 0.8]] * 3 + [[0.0, 0.0], [1.0, 0.0]]
    np.testing.assert_allclose(unit_rows(x), expected, rtol=1e-15)
    plain = np.random.default_rng(0).normal(size=(50, 7))
    np.testing.assert_array_equal(unit_rows(plain), plain / np.linalg.norm(plain, axis=1, keepdims=True))


def test_zero_rows_stay_zero_and_nan_is_refused():
    assert np.array_equal(unit_rows(np.array([[0.0, 0.0], [3.0, 4.0]])), [[0, 0], [0.6, 0.8]])
    with pytest.raises(ValueError, match="finite"):
        unit_rows(np.array([[np.nan, 1.0]]))
