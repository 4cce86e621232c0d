"""Roots, bandwidths and smoothing against direct evaluations of their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import gaussian_kde

from musegnn.coexpression.bandwidth import bandwidth_nrd, bandwidth_sj, brent_root, kernel_density, smooth_normal


@settings(max_examples=60, deadline=None)
@given(
    root=st.floats(-5, 5),
    low=st.floats(0.1, 8),
    high=st.floats(0.1, 8),
    power=st.sampled_from([1, 3, 5]),
    tolerance=st.sampled_from([1e-1, 1e-3, 1e-8]),
)
def test_root_is_found_within_the_tolerance(root, low, high, power, tolerance):
    found = brent_root(lambda x: (x - root) ** power, root - low, root + high, tolerance=tolerance)
    assert abs(found - root) <= tolerance + 4e-15


@pytest.mark.parametrize("function", [lambda x: math.exp(x) - 5, lambda x: math.cos(x) - x, lambda x: x**3 - 2 * x - 5])
def test_root_agrees_with_scipy(function):
    found = brent_root(function, 0.0, 4.0, tolerance=1e-14)
    assert found == pytest.approx(brentq(function, 0.0, 4.0, xtol=1e-14), abs=1e-13)


def test_tolerance_decides_when_the_search_ends():
    calls = {0.5: 0, 1e-12: 0}
    for tolerance in calls:

        def function(x, tolerance=tolerance):
            calls[tolerance] += 1
            return math.exp(x) - 5

        brent_root(function, 0.0, 4.0, tolerance=tolerance)
    assert calls[0.5] < calls[1e-12] < 16


@pytest.mark.parametrize(
    ("high", "tolerance", "expected"),
    [(4.0, 0.1, 0.7759397938698651), (4.0, 0.01, 0.7739063651778256), (20.0, 0.1, 0.7583551760827679)],
)
def test_unfinished_search_ends_where_it_always_did(high, tolerance, expected):
    assert brent_root(lambda x: x**9 - 0.1, 0.0, high, tolerance=tolerance) == pytest.approx(expected, rel=1e-13)


def test_root_at_an_end_is_returned_at_once():
    assert brent_root(lambda x: x, 0.0, 1.0, tolerance=0.1) == 0.0
    assert brent_root(lambda x: x - 1.0, 0.0, 1.0, tolerance=0.1) == 1.0


def test_bracket_without_a_change_of_sign_is_refused():
    with pytest.raises(ValueError, match="opposite sign"):
        brent_root(lambda x: x * x + 1.0, -1.0, 1.0, tolerance=0.1)


def sheather_jones(x: np.ndarray) -> float:
    """Solve the equation of the paper on all pairs, without bins, to full precision."""
    n = len(x)
    differences = x[:, None] - x

    def functional(order: int, h: float) -> float:
        t = differences / h
        hermite = {4: t**4 - 6 * t**2 + 3, 6: t**6 - 15 * t**4 + 45 * t**2 - 15}[order]
        return float((hermite * np.exp(-(t**2) / 2)).sum() / math.sqrt(2 * math.pi) / (n * (n - 1) * h ** (order + 1)))

    low, high = np.quantile(x, [0.25, 0.75])
    scale = min(x.std(ddof=1), (high - low) / 1.349)
    ratio = functional(4, 1.24 * scale * n ** (-1 / 7)) / -functional(6, 1.23 * scale * n ** (-1 / 9))

    def equation(h: float) -> float:
        s = functional(4, 1.357 * ratio ** (1 / 7) * h ** (5 / 7))
        return (1 / (2 * math.sqrt(math.pi) * n * s)) ** 0.2 - h

    return brentq(equation, 0.01 * scale, 2 * scale, xtol=1e-12)


FROZEN_SJ = {"squares": 0.02844202585983358, "heavy tails": 0.3481366249048866}


def samples() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "normal": rng.normal(size=300),
        "skewed": rng.gamma(2.0, 1.0, 250),
        "two modes": np.concatenate([rng.normal(-3, 0.5, 150), rng.normal(2, 1.0, 200)]),
    }


@pytest.mark.parametrize("name", samples())
def test_sheather_jones_solves_its_equation(name):
    x = samples()[name]
    low, high = np.quantile(x, [0.25, 0.75])
    largest = 1.144 * min(x.std(ddof=1), (high - low) / 1.349) * len(x) ** -0.2
    binning = np.ptp(x) / 1000
    assert bandwidth_sj(x) == pytest.approx(sheather_jones(x), abs=0.01 * largest + binning)


@pytest.mark.parametrize("name", FROZEN_SJ)
def test_sheather_jones_keeps_its_loose_root(name):
    u = np.array([((k + 1) * 0.6180339887498949) % 1.0 for k in range(400)])
    x = {"squares": u**2, "heavy tails": np.tan(1.4 * (2 * u - 1))}[name]
    assert bandwidth_sj(x) == pytest.approx(FROZEN_SJ[name], rel=1e-11)
    assert bandwidth_sj(x) != pytest.approx(sheather_jones(x), rel=1e-6)


@pytest.mark.parametrize("x", [np.ones(30), np.array([1.0]), np.zeros(0), np.array([0.0] * 20 + [1.0])])
def test_concentrated_sample_has_no_bandwidth(x):
    with pytest.raises(ValueError, match="spread"):
        bandwidth_sj(x)


def test_normal_reference_rule_uses_the_smaller_spread():
    x = np.concatenate([np.linspace(0, 1, 99), [50.0]])
    low, high = np.quantile(x, [0.25, 0.75])
    assert bandwidth_nrd(x) == pytest.approx(1.06 * (high - low) / 1.34 * 100**-0.2, rel=1e-14)


def test_density_agrees_with_a_direct_kernel_estimate():
    x = np.random.default_rng(1).normal(size=400)
    bandwidth = bandwidth_nrd(x)
    direct = gaussian_kde(x, bw_method=bandwidth / x.std(ddof=1))(x)
    np.testing.assert_allclose(kernel_density(x, bandwidth), direct, rtol=2e-3)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), bandwidth=st.floats(0.5, 4.0))
def test_smooth_is_the_weighted_mean_within_four_sigma(seed, bandwidth):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=80), rng.normal(size=80)
    places = rng.uniform(x.min(), x.max(), 25)
    sigma = 0.3706506 * bandwidth
    distance = np.abs(places[:, None] - x)
    weight = np.where(distance <= 4 * sigma, np.exp(-0.5 * (distance / sigma) ** 2), 0.0)
    usable = weight.sum(axis=1) > 0
    expected = (weight @ y)[usable] / weight.sum(axis=1)[usable]
    np.testing.assert_allclose(smooth_normal(x, y, places, bandwidth)[usable], expected, rtol=1e-12, atol=1e-13)


def test_kernel_has_its_quartiles_at_a_quarter_of_the_bandwidth():
    assert math.erf(0.25 / 0.3706506 / math.sqrt(2)) == pytest.approx(0.5, abs=1e-6)


def test_gap_is_bridged_by_the_nearest_point():
    smooth = smooth_normal(np.array([0.0, 10.0]), np.array([3.0, 7.0]), np.array([4.0, 6.0]), 0.1)
    assert smooth.tolist() == [3.0, 7.0]
