"""Effective rank and mean cosine against their definitions."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from musegnn.vectors import effective_rank, mean_cosine


def slow_effective_rank(x):
    covariance = np.cov(x.T, bias=True)
    share = np.linalg.eigvalsh(np.atleast_2d(covariance)).clip(0)
    share = share / share.sum()
    return np.exp(-sum(p * np.log(p) for p in share if p > 0))


def slow_mean_cosine(x):
    values = [
        x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]) for i in range(len(x)) for j in range(i + 1, len(x))
    ]
    return np.mean(values)


@pytest.mark.parametrize("shape", [(40, 5), (7, 12), (30, 1)])
def test_equal_the_definitions(shape):
    x = np.random.default_rng(1).normal(size=shape) * np.arange(1, shape[1] + 1) + 3
    assert effective_rank(x) == pytest.approx(slow_effective_rank(x), rel=1e-9)
    assert mean_cosine(x) == pytest.approx(slow_mean_cosine(x), abs=1e-12)


def test_effective_rank_counts_planted_dimensions():
    random = np.random.default_rng(0)
    for k in (1, 3, 8):
        x = random.normal(size=(20_000, k)) @ np.linalg.qr(random.normal(size=(16, 16)))[0][:k]
        assert effective_rank(x + 5) == pytest.approx(k, rel=5e-3)


def test_collapse_is_seen():
    random = np.random.default_rng(0)
    line = np.outer(random.normal(size=100), random.normal(size=8)) + 50
    assert effective_rank(line) == pytest.approx(1.0, abs=1e-6)
    assert mean_cosine(line) > 0.99
    assert np.isnan(effective_rank(np.full((10, 3), 0.1)))
    assert np.isnan(mean_cosine(np.ones((1, 3))))


def test_null_has_no_mean_cosine():
    x = np.random.default_rng(0).normal(size=(4000, 32))
    assert abs(mean_cosine(x)) < 1e-3
    assert effective_rank(x) > 31.5


NOT_TINY = st.floats(-10, 10).filter(lambda v: v == 0.0 or abs(v) > 1e-280)  # which rotations keep to all digits


@given(arrays(np.float64, (6, 3), elements=NOT_TINY), st.integers(0, 100))
@example(np.where(np.arange(18).reshape(6, 3) == 0, 0.0, 3.58912028e-162), 0)
def test_rotation_and_order_change_nothing(x, seed):
    random = np.random.default_rng(seed)
    rotation = np.linalg.qr(random.normal(size=(3, 3)))[0]
    y = (x @ rotation)[random.permutation(6)]
    assert mean_cosine(y) == pytest.approx(mean_cosine(x), abs=1e-9)
    spread = np.ptp(x, axis=0).max()
    if spread > 1e-3:
        assert effective_rank(y) == pytest.approx(effective_rank(x), rel=1e-6)
