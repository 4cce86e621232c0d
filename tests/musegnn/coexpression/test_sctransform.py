"""The laws of the sctransform model on synthetic counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csc_matrix, csr_matrix
from scipy.stats import nbinom

from benchmarks.peers.sctransform_in_memory import (
    gene_stats,
    residuals,
    sctransform,
    step_one_from_cells,
    step_one_from_sums,
)
from musegnn.coexpression.bandwidth import bandwidth_sj
from musegnn.coexpression.regularize import StepOne, flag_outliers, regularize
from musegnn.coexpression.residuals import ResidualMoments, rank_variable
from musegnn.coexpression.sctransform import running_median, sample_genes
from musegnn.kernels.nb_intercept import fit_dispersion, fit_intercept

N_CELLS, N_GENES = 600, 240
GOLDEN_RATIO = 0.6180339887498949


def size_of(rate: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Return the true negative binomial size, a smooth function of abundance."""
    return 1.0 + 2.0 * (rate * depth.mean()) ** 0.3


def simulate(seed: int = 0, *, n_cells: int = N_CELLS, n_genes: int = N_GENES):
    rng = np.random.default_rng(seed)
    depth = np.round(rng.lognormal(7.0, 0.4, n_cells))
    rate = 10 ** rng.uniform(-3.7, -1.5, n_genes)
    mu = depth[:, None] * rate
    theta = size_of(rate, depth)
    counts = rng.poisson(mu * rng.gamma(theta, 1 / theta, mu.shape))
    filler = rng.poisson(depth * 0.2) + 1
    return csr_matrix(np.column_stack([counts, filler]).astype(np.int32)), rate, theta


def fixed_counts() -> csr_matrix:
    """Make counts without a random generator: quantiles of negative binomials at low-discrepancy points."""
    place = np.arange(200 * 60).reshape(200, 60)
    depth = np.round(600 * (1 + (place[:, :1] * np.sqrt(2)) % 1.0))
    mu = depth * 10 ** np.linspace(-3.5, -1.3, 60)
    return csr_matrix(nbinom.ppf(((place + 1) * GOLDEN_RATIO) % 1.0, 2.0, 2.0 / (2.0 + mu)).astype(np.int32))


@pytest.fixture(scope="module")
def fitted():
    counts, _, _ = simulate()
    return sctransform(counts)


def noise(fitted):
    return fitted.model.noise(fitted.model.clip)


def test_sizes_of_the_simulation_are_recovered():
    counts, _, theta = simulate(n_cells=3000)
    error = np.log(sctransform(counts).model.theta[:-1] / theta)
    assert abs(np.median(error)) < 0.05
    assert np.median(np.abs(error)) < 0.1


def test_expected_totals_follow_the_counts(fitted):
    expected = np.exp(fitted.model.intercept) * fitted.depth.sum()
    error = np.log(expected / fitted.stats.total)
    assert abs(np.median(error)) < 0.02
    assert np.quantile(np.abs(error), 0.9) < 0.25


def test_fixed_counts_give_the_recorded_parameters():
    result = sctransform(fixed_counts())
    genes = [5, 30, 55]
    assert result.model.report["bandwidth"] == pytest.approx(0.8859567335265666, rel=1e-9)
    np.testing.assert_allclose(
        result.model.theta[genes], [1.2263907701940442, 1.7768038756565556, 2.920184971897838], rtol=1e-8
    )
    np.testing.assert_allclose(
        result.model.intercept[genes], [-6.817263570901529, -4.978991938929418, -3.1972297991960112], rtol=1e-10
    )
    np.testing.assert_allclose(
        result.residual_variance[genes], [0.4627468710360158, 0.9290598691389924, 2.760804875894746], rtol=1e-8
    )


def test_order_of_genes_does_not_matter(fitted):
    order = np.random.default_rng(1).permutation(fitted.model.n_genes)
    shuffled = sctransform(fitted.counts[:, order])
    np.testing.assert_allclose(shuffled.model.theta, fitted.model.theta[order], rtol=1e-9)
    np.testing.assert_allclose(shuffled.model.intercept, fitted.model.intercept[order], rtol=1e-11)
    np.testing.assert_array_equal(order[shuffled.ranking()], fitted.ranking())


def test_order_of_cells_does_not_matter(fitted):
    order = np.random.default_rng(2).permutation(len(fitted.depth))
    shuffled = sctransform(fitted.counts[order])
    np.testing.assert_allclose(shuffled.model.theta, fitted.model.theta, rtol=1e-9)
    np.testing.assert_allclose(shuffled.residual_variance, fitted.residual_variance, rtol=1e-9)


def test_equal_input_gives_equal_bits(fitted):
    again = sctransform(fitted.counts.astype(np.float64))
    np.testing.assert_array_equal(again.model.theta, fitted.model.theta)
    np.testing.assert_array_equal(again.model.intercept, fitted.model.intercept)
    np.testing.assert_array_equal(again.residual_variance, fitted.residual_variance)


def test_streamed_variance_equals_the_dense_definition(fitted):
    dense = fitted.residuals(np.arange(fitted.model.n_genes))
    np.testing.assert_allclose(fitted.residual_variance, dense.var(axis=0, ddof=1), rtol=1e-12)
    np.testing.assert_allclose(fitted.residual_mean, dense.mean(axis=0), rtol=0, atol=1e-13)


@settings(max_examples=15, deadline=None)
@given(rows=st.integers(1, 700))
def test_blocks_of_any_size_give_the_same_moments(fitted, rows):
    moments = ResidualMoments(noise(fitted))
    for start in range(0, len(fitted.depth), rows):
        part = slice(start, start + rows)
        moments.update(fitted.counts[part], fitted.depth[part])
    mean, variance = moments.finish(fitted.depth)
    np.testing.assert_allclose(variance, fitted.residual_variance, rtol=1e-12)
    np.testing.assert_allclose(mean, fitted.residual_mean, rtol=0, atol=1e-13)


def test_moments_need_every_cell(fitted):
    moments = ResidualMoments(noise(fitted))
    moments.update(fitted.counts[:10], fitted.depth[:10])
    with pytest.raises(ValueError, match=r"the 10 cells .* got 600"):
        moments.finish(fitted.depth)
    moments.update(fitted.counts[10:], fitted.depth[10:])
    with pytest.raises(ValueError, match=r"the 600 cells .* got 599"):
        moments.finish(fitted.depth[1:])


def test_moments_of_parts_add_up(fitted):
    whole, merged = ResidualMoments(noise(fitted)), ResidualMoments(noise(fitted))
    whole.update(fitted.counts, fitted.depth)
    for part in (slice(0, 250), slice(250, 600)):
        moments = ResidualMoments(noise(fitted))
        moments.update(fitted.counts[part], fitted.depth[part])
        merged.merge(moments.parts())
    for ours, expected in zip(merged.finish(fitted.depth), whole.finish(fitted.depth), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-13)


def test_profile_bound_is_tighter(fitted):
    genes = fitted.ranking()[:20]
    tight = fitted.residuals(genes, clip=fitted.model.profile_clip)
    assert fitted.model.profile_clip == pytest.approx(np.sqrt(600 / 30))
    assert np.abs(tight).max() == fitted.model.profile_clip
    np.testing.assert_array_equal(tight, np.clip(fitted.residuals(genes), -np.sqrt(20), np.sqrt(20)))


def test_marker_genes_rank_first():
    counts, _, _ = simulate(3)
    dense = counts.toarray()
    markers = [10, 100, 200]
    dense[:60, markers] += 40
    ranking = sctransform(csr_matrix(dense)).ranking()
    assert set(ranking[:3]) == set(markers)


def test_rare_genes_get_no_model(fitted):
    rare = np.zeros((600, 2), np.int32)
    rare[:4, 0] = 9
    counts = csr_matrix(np.column_stack([rare, fitted.counts.toarray()]))
    result = sctransform(counts)
    assert np.flatnonzero(~result.model.has_model).tolist() == [0, 1]
    assert np.isnan(result.residual_variance[:2]).all()
    assert sorted(result.ranking()) == list(range(2, counts.shape[1]))
    assert sctransform(counts, min_cells=4).model.has_model[:2].tolist() == [True, False]


def test_binary_counts_get_the_poisson_model():
    rng = np.random.default_rng(4)
    counts = csr_matrix((rng.random((300, 50)) < rng.uniform(0.1, 0.9, 50)).astype(np.int32))
    result = sctransform(counts)
    assert np.isinf(result.model.theta).all()
    expected = np.log(result.stats.mean) - np.log(result.depth.mean())
    np.testing.assert_allclose(result.model.intercept, expected, rtol=1e-13)
    assert result.model.report["has_trend"] is False
    assert result.model.report["poisson_genes"] == 50


def test_few_overdispersed_genes_keep_their_own_parameters():
    counts, _, _ = simulate(5, n_genes=4)
    result = sctransform(counts)
    stats = result.stats
    alone = step_one_from_sums(counts, result.depth, np.arange(5), stats.mean, stats.variance)
    assert result.model.report["has_trend"] is False
    np.testing.assert_array_equal(result.model.theta, alone.theta)
    assert np.isfinite(result.model.theta[:4]).all()
    np.testing.assert_array_equal(result.model.intercept[:4], alone.intercept[:4])


def test_sample_of_genes_is_a_function_of_the_seed():
    counts, _, _ = simulate(6, n_cells=900)
    first, again, other = (sctransform(counts, n_genes=80, seed=s) for s in (1, 1, 2))
    assert first.model.report["step1_genes"] == 80
    np.testing.assert_array_equal(first.model.theta, again.model.theta)
    assert not np.array_equal(first.model.theta, other.model.theta)
    np.testing.assert_allclose(first.model.theta, other.model.theta, rtol=1.0)


def test_sampled_genes_spread_evenly_over_abundance():
    x = np.random.default_rng(7).normal(size=4000)
    chosen = sample_genes(np.arange(4000), x, 400, seed=0)
    assert len(np.unique(chosen)) == 400
    assert np.array_equal(chosen, np.sort(chosen))
    assert np.std(x[chosen]) > 1.4 * np.std(x)
    few = np.array([3, 5, 8])
    np.testing.assert_array_equal(sample_genes(few, x[:3], 3, seed=0), few)


def test_empty_choices_are_refused(fitted):
    with pytest.raises(ValueError, match="at least 601 cells"):
        sctransform(fitted.counts, min_cells=601)


def test_minimal_variance_bounds_the_denominator():
    counts, _, _ = simulate(8)
    result = sctransform(counts)
    dense = counts.toarray()
    assert result.model.min_variance == (np.median(dense[dense > 0]) / 5) ** 2
    mu = np.exp(result.model.intercept) * result.depth[:, None]
    variance = np.maximum(mu + mu**2 / result.model.theta, result.model.min_variance)
    expected = np.clip((dense - mu) / np.sqrt(variance), -np.sqrt(600), np.sqrt(600))
    np.testing.assert_allclose(result.residuals(np.arange(dense.shape[1])), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("n", [1, 2, 99, 100, 101, 102, 240, 1500])
def test_running_median_follows_its_definition(n):
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=n), rng.normal(size=n)
    window = min(n, max(0.1 * n, 100))
    half = int(window // 2)
    order = np.argsort(x)
    smooth = running_median(x, y)
    for rank in range(n):
        middle = min(max(rank, half), n - half - 1)
        near = order[middle - half : middle + half + 1] if 2 * half < n else order
        weight = np.exp(-0.5 * np.linspace(-3, 3, len(near)) ** 2)
        value = smooth[order[rank]]
        assert value in y[near]
        assert weight[y[near] < value].sum() <= weight.sum() / 2 + 1e-12
        assert weight[y[near] > value].sum() <= weight.sum() / 2 + 1e-12


def test_planted_outlier_is_flagged_alone():
    x = np.linspace(-2, 1, 300)
    y = 0.3 * x + 0.05 * np.sin(97 * x)
    y[[40, 220]] += np.array([3.0, -3.0])
    assert np.flatnonzero(flag_outliers(y, x)).tolist() == [40, 220]
    assert not flag_outliers(y, np.zeros(300)).any()


def robust_scores(y: np.ndarray, x: np.ndarray, start: float, width: float) -> np.ndarray:
    scores = np.empty(len(y))
    bins = np.ceil((x - start) / width)
    for b in set(bins):
        inside = y[bins == b]
        spread = 1.4826 * np.median(np.abs(inside - np.median(inside)))
        scores[bins == b] = np.abs(inside - np.median(inside)) / (spread + 2.220446049250313e-16)
    return scores


@pytest.mark.parametrize("seed", range(5))
def test_outliers_score_above_ten_in_both_binnings(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(-1, 0.7, 900), rng.standard_cauchy(900)
    width = np.ptp(x) * bandwidth_sj(x) / 2
    start = x.min() - 2.2e-15
    both = np.minimum(robust_scores(y, x, start, width), robust_scores(y, x, start - width / 2, width))
    assert 20 < (both > 10).sum() < 200
    np.testing.assert_array_equal(flag_outliers(y, x), both > 10)


def test_genes_below_a_mean_of_a_thousandth_are_poisson():
    geometric, theta, intercept = trend_problem()
    mean = geometric.copy()
    mean[:3] = [0.9e-3, 1.1e-3, 5e-3]
    result = regularize(
        StepOne(genes=np.arange(200), theta=theta, intercept=intercept),
        geometric_mean=geometric,
        mean=mean,
        variance=3 * mean,
        mean_filtered_depth=1e3,
    )
    assert result.poisson[:4].tolist() == [True, False, False, False]
    assert np.isinf(result.theta[:4]).tolist() == [True, False, False, False]


@pytest.mark.parametrize("fit", [step_one_from_cells, step_one_from_sums])
def test_size_is_the_inverse_of_the_genes_own_dispersion(fit):
    depth = np.full(400, 1000.0)
    x = np.zeros((400, 1), np.int32)
    x[:6, 0] = [1, 2, 1, 1, 2, 30000]
    fitted = fit(csr_matrix(x), depth, np.zeros(1, np.int64), x.mean(axis=0), x.var(axis=0, ddof=1))
    d = fit_dispersion(csc_matrix(x), depth, fit_intercept(csc_matrix(x), depth, np.zeros(1)), np.array([1.0]))
    assert 1e-4 < fitted.theta[0] < 5e-3
    assert fitted.theta[0] == pytest.approx(1 / d[0], rel=1e-7)


def test_poisson_intercepts_refer_to_the_modelled_counts_alone():
    rng = np.random.default_rng(9)
    counts = (rng.random((300, 30)) < 0.4).astype(np.int32)
    rare = np.zeros((300, 1), np.int32)
    rare[:4] = 500
    result = sctransform(csr_matrix(np.hstack([counts, rare])))
    np.testing.assert_allclose(np.exp(result.model.intercept[:30]).sum(), 1.0, rtol=1e-13)


def trend_problem():
    x = np.linspace(-2, 1, 200)
    geometric = 10**x
    theta = geometric / (10 ** (0.2 + 0.1 * (x + 2)) - 1)
    return geometric, theta, np.log(geometric) - 7.0


def test_smoothing_keeps_constants_and_straight_lines_inside():
    geometric, theta, intercept = trend_problem()
    step_one = StepOne(genes=np.arange(200), theta=theta, intercept=intercept)
    result = regularize(
        step_one, geometric_mean=geometric, mean=geometric, variance=2 * geometric, mean_filtered_depth=1e3
    )
    inside = slice(80, 120)
    assert result.has_trend
    np.testing.assert_allclose(result.intercept[inside], intercept[inside], atol=1e-3)
    np.testing.assert_allclose(result.theta[inside], theta[inside], rtol=1e-3)


def test_poisson_genes_and_outliers_do_not_move_the_trend():
    geometric, theta, intercept = trend_problem()
    mean, variance = geometric.copy(), 2 * geometric
    variance[50] = mean[50]
    theta[100] = np.inf
    spoiled = theta.copy()
    spoiled[50] = 1e-5
    results = [
        regularize(
            StepOne(genes=np.arange(200), theta=t, intercept=intercept),
            geometric_mean=geometric,
            mean=mean,
            variance=variance,
            mean_filtered_depth=1e3,
        )
        for t in (theta, spoiled)
    ]
    np.testing.assert_array_equal(results[0].theta, results[1].theta)
    assert np.isinf(results[0].theta[50])
    assert results[0].intercept[50] == pytest.approx(np.log(mean[50]) - np.log(1e3), rel=1e-14)
    assert np.isfinite(results[0].theta[100])
    assert results[0].outlier[100]


def test_genes_beyond_the_fitted_range_take_its_ends():
    geometric, theta, intercept = trend_problem()
    inner = np.arange(50, 150)
    result = regularize(
        StepOne(genes=inner, theta=theta[inner], intercept=intercept[inner]),
        geometric_mean=geometric,
        mean=geometric,
        variance=2 * geometric,
        mean_filtered_depth=1e3,
    )
    assert np.ptp(result.intercept[:51]) == 0.0
    assert np.ptp(result.intercept[149:]) == 0.0
    assert np.all(np.diff(result.intercept[50:150]) > 0)


def test_restricted_model_gives_the_same_residuals(fitted):
    genes = np.array([7, 3, 100])
    whole = residuals(fitted.counts, fitted.depth, fitted.model)
    part = residuals(fitted.counts[:, genes], fitted.depth, fitted.model.take(genes))
    np.testing.assert_array_equal(part, whole[:, genes])


def test_ranking_is_stable_and_leaves_genes_without_model_out():
    assert rank_variable(np.array([1.0, np.nan, 3.0, 1.0])).tolist() == [2, 0, 3]


def test_stats_agree_with_numpy(fitted):
    dense = fitted.counts.toarray().astype(np.float64)
    stats = gene_stats(fitted.counts)
    np.testing.assert_allclose(stats.mean, dense.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(stats.variance, dense.var(axis=0, ddof=1), rtol=1e-10)
    np.testing.assert_allclose(stats.geometric_mean, np.expm1(np.log1p(dense).mean(axis=0)), rtol=1e-12)
    np.testing.assert_array_equal(stats.n_detected, (dense > 0).sum(axis=0))
