"""Intercepts and dispersions against closed forms, arbitrary precision and scipy's optimisers."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csc_matrix

from musegnn.kernels.nb_intercept import fit_dispersion, fit_intercept
from musegnn.kernels.nb_intercept.impl.numba import log_ratio, sum_run, tail_counts


def simulate(seed: int, *, n_cells: int = 150, dispersion=(0.0, 0.05, 0.4, 2.0), mean: float = 3.0):
    rng = np.random.default_rng(seed)
    depth = np.round(rng.lognormal(3.0, 0.6, n_cells)) + 1.0
    columns = []
    for d in dispersion:
        mu = mean * depth / depth.mean()
        rate = mu if d == 0.0 else rng.gamma(1 / d, d * mu)
        column = rng.poisson(rate)
        column[0] = max(column[0], 1)
        columns.append(column)
    return csc_matrix(np.stack(columns, axis=1).astype(np.int32)), depth


def score(b: float, d: float, x: np.ndarray, s: np.ndarray) -> float:
    mu = np.exp(b) * s
    return float(np.sum((x - mu) / (1 + d * mu)))


def test_poisson_intercept_is_the_ratio_of_sums():
    counts, depth = simulate(0)
    fitted = fit_intercept(counts, depth, np.zeros(4))
    expected = np.log(np.asarray(counts.sum(axis=0)).ravel() / depth.sum())
    np.testing.assert_allclose(fitted, expected, rtol=0, atol=1e-13)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), d=st.floats(0.0, 50.0))
def test_intercept_solves_the_score_equation(seed, d):
    counts, depth = simulate(seed)
    fitted = fit_intercept(counts, depth, np.full(4, d))
    for j, b in enumerate(fitted):
        x = counts[:, [j]].toarray().ravel()
        assert score(b - 1e-8, d, x, depth) > 0 > score(b + 1e-8, d, x, depth)


@pytest.mark.parametrize("start", [-29.0, 0.0, 12.0])
def test_intercept_does_not_depend_on_the_start(start):
    counts, depth = simulate(3)
    d = np.array([0.0, 0.3, 1.0, 8.0])
    there = fit_intercept(counts, depth, d, start=np.full(4, start))
    np.testing.assert_allclose(there, fit_intercept(counts, depth, d, impl="reference"), rtol=0, atol=2e-11)


def exact_dispersion(x: np.ndarray, mu: np.ndarray, start: float, cox_reid: float) -> float:
    """Maximise the textbook likelihood in 40 digits."""
    with mpmath.workdps(40):
        xs, mus = [mpmath.mpf(int(v)) for v in x], [mpmath.mpf(float(m)) for m in mu]

        def likelihood(log_d):
            d = mpmath.exp(log_d)
            r = 1 / d
            total = -len(xs) * r * log_d
            for v, m in zip(xs, mus, strict=True):
                total += mpmath.loggamma(v + r) - mpmath.loggamma(r) - (v + r) * mpmath.log(m + r)
            return total - mpmath.mpf(cox_reid) / 2 * mpmath.log(mpmath.fsum(1 / (1 / m + d) for m in mus))

        root = mpmath.findroot(lambda t: mpmath.diff(likelihood, t), mpmath.log(start), tol=1e-25)
        return float(mpmath.exp(root))


@pytest.mark.parametrize(("d", "mean"), [(0.02, 40.0), (0.4, 3.0), (2.0, 0.5)])
def test_dispersion_maximises_the_adjusted_likelihood(d, mean):
    counts, depth = simulate(5, n_cells=40, dispersion=(d,), mean=mean)
    intercept = fit_intercept(counts, depth, np.array([d]))
    fitted = fit_dispersion(counts, depth, intercept, np.array([0.5]))[0]
    x = counts.toarray().ravel()
    assert fitted > 1e-3
    assert fitted == pytest.approx(exact_dispersion(x, np.exp(intercept[0]) * depth, fitted, 0.99), rel=1e-9)


def test_dispersion_agrees_with_the_reference():
    counts, depth = simulate(11, n_cells=400, dispersion=(0.05, 0.2, 1.0, 5.0))
    intercept = fit_intercept(counts, depth, np.array([0.05, 0.2, 1.0, 5.0]))
    start = np.array([0.5, 1e-6, 40.0, 0.5])
    fast = fit_dispersion(counts, depth, intercept, start)
    slow = fit_dispersion(counts, depth, intercept, start, impl="reference")
    np.testing.assert_allclose(fast, slow, rtol=1e-5)


def test_cancelling_ratio_keeps_its_precision():
    for t in np.geomspace(1e-18, 1e6, 300):
        with mpmath.workdps(80):
            m = mpmath.mpf(float(t))
            value = (m / (1 + m) - mpmath.log1p(m)) / m**2
            slope = -1 / (m * (1 + m) ** 2) - 2 * value / m
        got = log_ratio(float(t))
        assert got[0] == pytest.approx(float(value), rel=1e-12)
        assert got[1] == pytest.approx(float(slope), rel=1e-9)


@pytest.mark.parametrize(("begin", "end"), [(64, 97), (64, 5000), (700, 1_000_000), (64, 1 << 24)])
def test_sums_over_runs_are_those_of_their_terms(begin, end):
    for d in [0.0, *np.geomspace(1e-16, 1e16, 60)]:
        with mpmath.workdps(60):
            if end - begin < 10_000:
                terms = [mpmath.mpf(k) / (1 + k * mpmath.mpf(float(d))) for k in range(begin, end)]
                value, squares = mpmath.fsum(terms), mpmath.fsum(t * t for t in terms)
            elif d == 0.0:
                value = mpmath.mpf(end * (end - 1) - begin * (begin - 1)) / 2
                squares = mpmath.mpf(sum((x - 1) * x * (2 * x - 1) * s for x, s in ((end, 1), (begin, -1)))) / 6
            else:
                r, n = 1 / mpmath.mpf(float(d)), end - begin
                by_gamma = mpmath.digamma(end + r) - mpmath.digamma(begin + r)
                value = r * (n - r * by_gamma)
                by_gamma = 2 * r * by_gamma + r * r * (mpmath.psi(1, end + r) - mpmath.psi(1, begin + r))
                squares = r * r * (n - by_gamma)
        got = sum_run(float(begin), float(end), float(d))
        assert got[0] == pytest.approx(float(value), rel=1e-13)
        assert got[1] == pytest.approx(float(squares), rel=1e-10)


def test_dispersion_with_counts_of_a_million():
    counts, depth = simulate(5, n_cells=40, dispersion=(0.4,), mean=300.0)
    x = counts.toarray().ravel()
    x[7] = 1_000_000
    counts = csc_matrix(x[:, None])
    ends, values, tails = tail_counts(counts.indptr, counts.data)
    assert ends.tolist() == [len(values)] == [len(np.unique(x))]
    np.testing.assert_array_equal(tails, [(x >= value).sum() for value in values])
    intercept = fit_intercept(counts, depth, np.array([2.0]))
    fitted = fit_dispersion(counts, depth, intercept, np.array([0.5]))[0]
    assert fitted == pytest.approx(exact_dispersion(x, np.exp(intercept[0]) * depth, fitted, 0.99), rel=1e-9)


def test_underdispersed_counts_have_no_dispersion():
    depth = np.full(60, 100.0)
    counts = csc_matrix(np.tile([[1], [2], [1], [2]], (15, 1)))
    intercept = fit_intercept(counts, depth, np.zeros(1))
    for impl in ("numba", "reference"):
        assert fit_dispersion(counts, depth, intercept, np.array([0.5]), impl=impl)[0] == 0.0


def test_larger_adjustment_gives_larger_dispersion():
    counts, depth = simulate(7, n_cells=30, dispersion=(0.5,))
    intercept = fit_intercept(counts, depth, np.array([0.5]))
    values = [fit_dispersion(counts, depth, intercept, np.array([0.5]), cox_reid=c)[0] for c in (0.0, 0.5, 0.99)]
    assert values == sorted(values)
    assert values[0] < values[-1]


def test_order_of_cells_does_not_matter():
    counts, depth = simulate(13)
    order = np.random.default_rng(0).permutation(len(depth))
    shuffled = csc_matrix(counts.toarray()[order])
    d = np.full(4, 0.3)
    np.testing.assert_allclose(fit_intercept(shuffled, depth[order], d), fit_intercept(counts, depth, d), rtol=1e-14)


def test_wrong_input_is_named():
    counts, depth = simulate(1)
    with pytest.raises(ValueError, match=r"CSC counts of shape \(150, 3\)"):
        fit_intercept(counts, depth, np.zeros(3))
    with pytest.raises(ValueError, match="expected CSC"):
        fit_intercept(counts.tocsr(), depth, np.zeros(4))
    with pytest.raises(ValueError, match="positive depths"):
        fit_intercept(counts, np.zeros(150), np.zeros(4))
    with pytest.raises(ValueError, match="genes without one"):
        fit_intercept(csc_matrix((150, 4)), depth, np.zeros(4))
    with pytest.raises(ValueError, match="positive starts"):
        fit_dispersion(counts, depth, np.zeros(4), np.zeros(4))
    with pytest.raises(ValueError, match="impl must be"):
        fit_intercept(counts, depth, np.zeros(4), impl="fast")
