from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from musegnn.kernels.gram import accumulate_dense_gram, accumulate_gram, symmetrize


def problem(seed: int, n: int, genes: int, density: float):
    rng = np.random.default_rng(seed)
    dense = rng.integers(1, 9, (n, genes)) * (rng.random((n, genes)) < density)
    depth = rng.integers(100, 10_000, n).astype(float)
    mu = rng.gamma(1.0, 1e-3, genes) + 1e-6
    slopes = np.ascontiguousarray(np.stack([mu**2 / 0.7, rng.gamma(1.0, 1e-7, genes)], axis=1))
    return csr_matrix(dense.astype(np.int32)), depth, mu, slopes


def definition(x, depth, mu, slopes):
    weight = 1.0 / (mu[:, None] + depth[:, None, None] * slopes)  # (n, N, 2)
    y = x.toarray()[:, :, None] * weight
    return np.einsum("ijw,ikw->jkw", y, y)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 40), st.integers(1, 30), st.floats(0.0, 1.0))
def test_both_implementations_equal_the_definition(seed, n, genes, density):
    x, depth, mu, slopes = problem(seed, n, genes, density)
    expected = definition(x, depth, mu, slopes)
    for impl in ("reference", "numba"):
        out = np.zeros((genes, genes, 2))
        accumulate_gram(x, depth, mu, slopes, out, impl=impl)
        symmetrize(out, rows=7)
        np.testing.assert_allclose(out, expected, rtol=1e-12)


def test_lower_triangle_is_left_alone():
    x, depth, mu, slopes = problem(1, 30, 12, 0.5)
    for impl in ("reference", "numba"):
        out = np.full((12, 12, 2), 3.0)
        accumulate_gram(x, depth, mu, slopes, out, impl=impl)
        assert (out[np.tril_indices(12, -1)] == 3.0).all()


@pytest.mark.parametrize("rows", [1, 17, 1000, 2048])
def test_numba_bits_do_not_depend_on_blocks(rows):
    x, depth, mu, slopes = problem(2, 5000, 20, 0.3)
    whole, parts = np.zeros((20, 20, 2)), np.zeros((20, 20, 2))
    accumulate_gram(x, depth, mu, slopes, whole)
    for start in range(0, 5000, rows):
        accumulate_gram(x[start : start + rows], depth[start : start + rows], mu, slopes, parts)
    np.testing.assert_array_equal(parts, whole)


def test_gene_without_counts_and_zero_mean():
    x, depth, mu, slopes = problem(3, 50, 6, 0.5)
    x = csr_matrix(x.multiply(np.array([1, 0, 1, 1, 1, 1])).astype(np.int32))
    x.eliminate_zeros()
    mu[1], slopes[1] = 0.0, 0.0
    out = np.zeros((6, 6, 2))
    accumulate_gram(x, depth, mu, slopes, out)
    assert np.isfinite(out).all()
    assert (out[1] == 0).all()


def test_dense_gram():
    rows = np.random.default_rng(4).normal(size=(50, 9))
    out = np.ones((9, 9))
    accumulate_dense_gram(rows, out)
    np.testing.assert_allclose(out, 1 + rows.T @ rows, rtol=1e-13)
    with pytest.raises(ValueError, match="rows must have shape"):
        accumulate_dense_gram(rows[:, 1:].copy(), out)


def test_malformed_input_is_refused():
    x, depth, mu, slopes = problem(5, 30, 12, 0.5)
    out = np.zeros((12, 12, 2))
    unsorted = x.copy()
    unsorted.indices[:2] = unsorted.indices[:2][::-1]
    unsorted.has_sorted_indices = False
    with pytest.raises(ValueError, match="sorted"):
        accumulate_gram(unsorted, depth, mu, slopes, out)
    with pytest.raises(ValueError, match="depth must have shape"):
        accumulate_gram(x, depth[1:], mu, slopes, out)
    with pytest.raises(TypeError, match="float64"):
        accumulate_gram(x, depth.astype(np.float32), mu, slopes, out)
    with pytest.raises(ValueError, match="out must have shape"):
        accumulate_gram(x, depth, mu, slopes, out[1:])
