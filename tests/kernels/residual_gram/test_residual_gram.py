from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from musegnn.kernels.residual_gram import ResidualGram
from musegnn.kernels.residuals import NoiseModel, dense_residuals


def problem(seed: int, n: int, genes: int, levels: int = 40):
    rng = np.random.default_rng(seed)
    depth = rng.choice(rng.integers(100, 10_000, levels), n).astype(float)
    rate = rng.gamma(0.5, 1e-3, genes) + 1e-6
    theta = np.where(rng.random(genes) < 0.2, np.inf, rng.gamma(1.0, 3.0, genes) + 0.01)
    x = rng.poisson(depth[:, None] * rate * rng.gamma(1.0, 1.0, (n, genes)))
    return csr_matrix(x.astype(np.int32)), depth, NoiseModel(rate, theta, 0.04, float(np.sqrt(max(n, 1) / 30)) + 0.5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 60), st.integers(1, 90))
def test_equals_the_definition(seed, n, genes):
    x, depth, model = problem(seed, n, genes)
    residuals = dense_residuals(x, depth, model)
    expected = residuals.T @ residuals
    for impl in ("numba", "reference"):
        gram = ResidualGram(model, impl=impl)
        gram.add(x, depth)
        products, total = gram.values(depth)
        scale = max(float(np.abs(expected).max(initial=0.0)), 1.0)
        np.testing.assert_allclose(products, expected, rtol=0, atol=1e-13 * scale)
        np.testing.assert_allclose(total, residuals.sum(axis=0), rtol=0, atol=1e-12 * max(n, 1))


@pytest.mark.parametrize("rows", [512, 1000, 1024])
def test_blocks_of_whole_parts_give_the_same_bits(rows):
    x, depth, model = problem(1, 3000, 70)
    whole, parts = ResidualGram(model), ResidualGram(model)
    whole.add(x, depth)
    for start in range(0, 3000, rows):
        parts.add(x[start : start + rows], depth[start : start + rows])
    np.testing.assert_array_equal(parts.cross, whole.cross)
    np.testing.assert_array_equal(parts.total, whole.total)


def test_what_does_not_fit_is_refused():
    x, depth, model = problem(2, 30, 5)
    gram = ResidualGram(model)
    with pytest.raises(ValueError, match="5 genes, got 4"):
        gram.add(x[:, 1:], depth)
    with pytest.raises(ValueError, match="depth must have shape"):
        gram.add(x, depth[1:])
    with pytest.raises(ValueError, match="with a model"):
        ResidualGram(model._replace(theta=np.full(5, np.nan)))
