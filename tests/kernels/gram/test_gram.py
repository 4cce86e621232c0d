from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from musegnn.kernels.gram import WeightedGram, accumulate_dense_gram, scattered_genes, symmetrize


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


def whole(x, depth, mu, slopes, **options):
    gram = WeightedGram(mu, slopes, **options)
    gram.add(x, depth)
    return gram.values()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 40), st.integers(1, 40), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_all_implementations_equal_the_definition(seed, n, genes, density, share):
    x, depth, mu, slopes = problem(seed, n, genes, density)
    expected = definition(x, depth, mu, slopes)
    upper = np.triu_indices(genes)
    for impl in ("reference", "numba", "torch"):
        out = whole(x, depth, mu, slopes, impl=impl, scattered=int(share * genes))
        np.testing.assert_allclose(out[upper], expected[upper], rtol=1e-12)


@pytest.mark.parametrize("impl", ["reference", "numba", "torch"])
@pytest.mark.parametrize("rows", [(0, 0), (0, 1), (5, 50), (33, 70), (69, 70)])
def test_stripes_are_parts_of_the_whole(impl, rows):
    x, depth, mu, slopes = problem(3, 300, 70, 0.3)
    expected = definition(x, depth, mu, slopes)[rows[0] : rows[1], rows[0] :]
    out = whole(x, depth, mu, slopes, rows=rows, scattered=40, impl=impl)
    assert out.shape == expected.shape
    upper = np.triu_indices(*expected.shape[:1], m=expected.shape[1])
    np.testing.assert_allclose(out[upper], expected[upper], rtol=1e-12)


@pytest.mark.parametrize("scattered", [0, 1, 31, 32, 90, 100])
def test_numba_bits_depend_on_neither_stripes_nor_scattering(scattered):
    x, depth, mu, slopes = problem(4, 1500, 100, 0.3)
    expected = whole(x, depth, mu, slopes)
    for start, stop in ((0, 100), (0, 37), (37, 64), (64, 100)):
        out = whole(x, depth, mu, slopes, rows=(start, stop), scattered=scattered)
        upper = np.triu_indices(stop - start, m=100 - start)
        np.testing.assert_array_equal(out[upper], expected[start:stop, start:][upper])


@pytest.mark.parametrize("rows", [1, 17, 512, 1000, 8192])
def test_numba_bits_do_not_depend_on_blocks(rows):
    x, depth, mu, slopes = problem(2, 9000, 20, 0.3)
    expected = whole(x, depth, mu, slopes, scattered=9)
    parts = WeightedGram(mu, slopes, scattered=9)
    for start in range(0, 9000, rows):
        parts.add(x[start : start + rows], depth[start : start + rows])
    upper = np.triu_indices(20)
    np.testing.assert_array_equal(parts.values()[upper], expected[upper])


def test_batches_are_cut_by_entries(monkeypatch):
    from musegnn.kernels.gram.impl import numba

    x, depth, mu, slopes = problem(6, 3000, 40, 0.4)
    expected = whole(x, depth, mu, slopes, scattered=20)
    monkeypatch.setattr(numba, "ENTRIES", 4000)
    out = np.zeros((40, 72, 2))
    numba.gram.py_func((x.indptr.astype(np.int64), x.indices, x.data), depth, mu, slopes, (0, 40, 20), out)
    upper = np.triu_indices(40)
    np.testing.assert_array_equal(out[:, :40][upper], expected[upper])


def test_unsorted_rows_are_taken_as_they_are():
    x, depth, mu, slopes = problem(7, 200, 30, 0.4)
    shuffled = x.copy()
    rng = np.random.default_rng(0)
    for i in range(200):
        part = slice(x.indptr[i], x.indptr[i + 1])
        order = rng.permutation(x.indptr[i + 1] - x.indptr[i])
        shuffled.indices[part], shuffled.data[part] = x.indices[part][order], x.data[part][order]
    upper = np.triu_indices(30)
    for scattered in (0, 15):
        out = whole(shuffled, depth, mu, slopes, scattered=scattered)
        np.testing.assert_array_equal(out[upper], whole(x, depth, mu, slopes)[upper])


def test_gene_without_counts_and_zero_mean():
    x, depth, mu, slopes = problem(3, 50, 6, 0.5)
    x = csr_matrix(x.multiply(np.array([1, 0, 1, 1, 1, 1])).astype(np.int32))
    x.eliminate_zeros()
    mu[1], slopes[1] = 0.0, 0.0
    out = whole(x, depth, mu, slopes)
    assert np.isfinite(out).all()
    assert (out[1] == 0).all()


def test_number_of_scattered_genes():
    assert scattered_genes(np.array([0, 7, 8, 100]), 100) == 2
    assert scattered_genes(np.array([], dtype=np.int64), 100) == 0
    with pytest.raises(ValueError, match="ascend"):
        scattered_genes(np.array([3, 2]), 100)


def test_dense_gram():
    rows = np.random.default_rng(4).normal(size=(50, 9))
    out = np.ones((9, 9))
    accumulate_dense_gram(rows, out)
    np.testing.assert_allclose(out, 1 + rows.T @ rows, rtol=1e-13)
    with pytest.raises(ValueError, match="rows must have shape"):
        accumulate_dense_gram(rows[:, 1:].copy(), out)


def test_symmetrize():
    values = np.arange(81.0).reshape(9, 9)
    expected = np.triu(values) + np.triu(values, 1).T
    symmetrize(values, rows=4)
    np.testing.assert_array_equal(values, expected)


def test_malformed_input_is_refused():
    x, depth, mu, slopes = problem(5, 30, 12, 0.5)
    gram = WeightedGram(mu, slopes)
    with pytest.raises(ValueError, match="depth must have shape"):
        gram.add(x, depth[1:])
    with pytest.raises(TypeError, match="float64"):
        gram.add(x, depth.astype(np.float32))
    with pytest.raises(ValueError, match="12 genes"):
        gram.add(x[:, 1:], depth)
    with pytest.raises(ValueError, match="rows and scattered"):
        WeightedGram(mu, slopes, rows=(3, 13))
    with pytest.raises(ValueError, match="impl must be"):
        WeightedGram(mu, slopes, impl="cuda")
    with pytest.raises(ValueError, match="slopes must have shape"):
        WeightedGram(mu, slopes[1:])
