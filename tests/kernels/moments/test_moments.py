from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from musegnn.kernels.moments import DepthBasis, accumulate_moments, chebyshev_order


def sparse_counts(seed: int, n: int = 60, genes: int = 13, density: float = 0.3) -> csr_matrix:
    rng = np.random.default_rng(seed)
    dense = rng.poisson(2.0, (n, genes)) * (rng.random((n, genes)) < density)
    return csr_matrix(dense.astype(np.int32))


@pytest.mark.parametrize("impl", ["reference", "numba"])
def test_moments_equal_the_definition(impl):
    x = sparse_counts(0)
    basis = np.random.default_rng(1).normal(size=(60, 7))
    m1, m2 = np.ones((13, 7)), np.zeros((13, 7))
    accumulate_moments(x, basis, m1, m2, impl=impl)
    dense = x.toarray().astype(float)
    np.testing.assert_allclose(m1 - 1, dense.T @ basis, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(m2, (dense * (dense - 1)).T @ basis, rtol=1e-12, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(1, 59), max_size=4))
def test_numba_bits_do_not_depend_on_blocks(seed, cuts):
    x = sparse_counts(seed)
    basis = np.random.default_rng(seed).normal(size=(60, 5))
    whole = [np.zeros((13, 5)), np.zeros((13, 5))]
    parts = [np.zeros((13, 5)), np.zeros((13, 5))]
    accumulate_moments(x, basis, *whole)
    edges = [0, *sorted(set(cuts)), 60]
    for start, stop in pairwise(edges):
        accumulate_moments(x[start:stop], basis[start:stop], *parts)
    np.testing.assert_array_equal(parts[0], whole[0])
    np.testing.assert_array_equal(parts[1], whole[1])


@pytest.mark.parametrize(("lowest", "highest"), [(889, 29_334), (100, 100_000), (500, 501), (700, 700)])
def test_weights_at_nodes_stand_for_the_cells(lowest, highest):
    """Rational functions with a pole at a negative depth are summed to 1e-11 of the sum of their terms."""
    rng = np.random.default_rng(4)
    depth = np.sort(rng.uniform(lowest, highest, 500))
    depth[0], depth[-1] = lowest, highest
    x = rng.poisson(depth / depth.mean())
    basis = DepthBasis(lowest, highest, chebyshev_order(lowest, highest))
    weights = basis.to_nodes(x @ basis.evaluate(depth))
    for pole in np.geomspace(1e-3 * lowest, 1e3 * highest, 25):
        exact = (x * depth / (depth + pole)).sum()
        assert weights @ (basis.nodes / (basis.nodes + pole)) == pytest.approx(exact, rel=1e-11)
    assert weights @ basis.nodes**4 == pytest.approx((x * depth**4).sum(), rel=1e-9)


def test_order_grows_with_the_range():
    assert chebyshev_order(1000, 1000) == 24
    assert chebyshev_order(1000, 10_000) == 24
    assert chebyshev_order(889, 29_334) == 28
    assert chebyshev_order(100, 100_000) == 46
    assert chebyshev_order(1, 1e6) > 70


@pytest.mark.parametrize("bad", [(0, 10), (-1, 10), (10, 5), (1, np.inf), (np.nan, 1)])
def test_ranges_that_are_refused(bad):
    with pytest.raises(ValueError, match="positive and finite"):
        chebyshev_order(*bad)
    with pytest.raises(ValueError, match="positive and finite"):
        DepthBasis(*bad, 24)


def test_depths_outside_the_range_are_refused():
    with pytest.raises(ValueError, match=r"depths must be in \[10, 20\]"):
        DepthBasis(10, 20, 24).evaluate(np.array([9.0, 15.0]))
    with pytest.raises(ValueError, match="depths must be in"):
        DepthBasis(10, 20, 24).evaluate(np.array([12.0, np.nan]))
    with pytest.raises(ValueError, match="order"):
        DepthBasis(10, 20, 0)


def test_malformed_blocks_are_refused():
    x = sparse_counts(5)
    basis, m1, m2 = np.zeros((60, 3)), np.zeros((13, 3)), np.zeros((13, 3))
    with pytest.raises(TypeError, match="CSR with int32"):
        accumulate_moments(x.astype(np.float64), basis, m1, m2)
    with pytest.raises(TypeError, match="CSR with int32"):
        accumulate_moments(x.tocsc(), basis, m1, m2)
    with pytest.raises(ValueError, match="basis must have shape"):
        accumulate_moments(x, basis[1:], m1, m2)
    with pytest.raises(TypeError, match="C order"):
        accumulate_moments(x, basis, np.zeros((3, 13)).T, m2)
    with pytest.raises(ValueError, match="impl must be"):
        accumulate_moments(x, basis, m1, m2, impl="fortran")
    for change in (-1, 13):
        broken = x.copy()
        broken.indices[2] = change
        with pytest.raises(ValueError, match="column indices"):
            accumulate_moments(broken, basis, m1, m2)
    broken = x.copy()
    broken.indptr[3] = broken.indptr[5] + 1
    with pytest.raises(ValueError, match="row pointers"):
        accumulate_moments(broken, basis, m1, m2)
