"""Streamed sums of residuals against the dense definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from musegnn.kernels.residuals import (
    NoiseModel,
    ResidualSums,
    accumulate_nonzeros,
    dense_residuals,
    zero_sums,
)


def problem(seed: int, *, n_cells: int = 60, n_genes: int = 7, clip: float = 4.0):
    rng = np.random.default_rng(seed)
    depth = rng.integers(20, 60, n_cells).astype(np.float64)
    rate = rng.lognormal(-4.0, 1.5, n_genes)
    theta = rng.lognormal(0.0, 1.0, n_genes)
    theta[0] = np.inf
    mu = depth[:, None] * rate
    counts = csr_matrix(rng.poisson(mu * rng.gamma(1.0, 1.0, mu.shape)).astype(np.int32))
    return counts, depth, NoiseModel(rate, theta, 0.3, clip)


def definition(counts: csr_matrix, depth: np.ndarray, model: NoiseModel) -> np.ndarray:
    r = np.empty(counts.shape)
    for i, j in np.ndindex(*counts.shape):
        mu = model.rate[j] * depth[i]
        variance = max(mu + mu**2 / model.theta[j], model.min_variance)
        r[i, j] = min(max((counts[i, j] - mu) / variance**0.5, -model.clip), model.clip)
    return r


def stream(counts, depth, model, *, rows: int, impl: str) -> ResidualSums:
    levels, cells = np.unique(depth, return_counts=True)
    sums = zero_sums(levels, cells, model, impl=impl)
    for start in range(0, len(depth), rows):
        part = slice(start, start + rows)
        accumulate_nonzeros(counts[part], depth[part], model, sums, impl=impl)
    return sums


@pytest.mark.parametrize("impl", ["numba", "reference"])
def test_dense_residuals_follow_the_definition(impl):
    counts, depth, model = problem(0)
    expected = definition(counts, depth, model)
    np.testing.assert_allclose(dense_residuals(counts, depth, model, impl=impl), expected, rtol=1e-14, atol=1e-15)


def test_both_bounds_are_reached():
    counts, depth, model = problem(0)
    r = definition(counts, depth, model)
    mu = depth[:, None] * model.rate
    assert (r == model.clip).any()
    assert (mu + mu**2 / model.theta < model.min_variance).any()


@pytest.mark.parametrize("impl", ["numba", "reference"])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 70))
def test_streamed_sums_equal_dense_sums_for_any_block_size(impl, seed, rows):
    counts, depth, model = problem(seed)
    r = definition(counts, depth, model)
    sums = stream(counts, depth, model, rows=rows, impl=impl)
    np.testing.assert_allclose(sums.first, r.sum(axis=0), rtol=0, atol=1e-11)
    np.testing.assert_allclose(sums.second, (r * r).sum(axis=0), rtol=1e-12, atol=1e-12)


def test_negative_clip_bound_holds_for_deep_cells():
    model = NoiseModel(np.array([1.0]), np.array([np.inf]), 0.0, 3.0)
    r = dense_residuals(csr_matrix((1, 1), dtype=np.int32), np.array([400.0]), model)
    assert r[0, 0] == -3.0


def test_gene_without_model_is_nan_and_alone():
    counts, depth, model = problem(2)
    model.rate[3] = model.theta[3] = np.nan
    for impl in ("numba", "reference"):
        sums = stream(counts, depth, model, rows=16, impl=impl)
        assert np.flatnonzero(np.isnan(sums.first)).tolist() == [3]
        assert np.flatnonzero(np.isnan(sums.second)).tolist() == [3]


@pytest.mark.parametrize("dtype", [np.int32, np.uint16, np.float32, np.float64])
def test_any_type_of_counts_gives_the_same_bits(dtype):
    counts, depth, model = problem(4)
    np.testing.assert_array_equal(
        dense_residuals(counts.astype(dtype), depth, model), dense_residuals(counts, depth, model)
    )


def test_wrong_input_is_named():
    counts, depth, model = problem(1)
    with pytest.raises(ValueError, match=r"CSR block of shape \(59, 7\)"):
        dense_residuals(counts, depth[:-1], model)
    with pytest.raises(ValueError, match="expected a CSR block"):
        dense_residuals(counts.tocsc(), depth, model)
    with pytest.raises(ValueError, match="clip > 0"):
        dense_residuals(counts, depth, model._replace(clip=0.0))
    with pytest.raises(ValueError, match="rate and theta"):
        dense_residuals(counts, depth, model._replace(rate=model.rate[1:]))
    with pytest.raises(ValueError, match="sums of shape"):
        accumulate_nonzeros(counts, depth, model, ResidualSums(np.zeros(2), np.zeros(2)))
    with pytest.raises(ValueError, match="depth and cells"):
        zero_sums(depth, np.ones(3, np.int64), model)
    with pytest.raises(ValueError, match="impl must be"):
        dense_residuals(counts, depth, model, impl="fast")
