"""SPARK-X against dense algebra, the closed form of its null, and scipy."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.stats import chi2, false_discovery_control, kstest

from benchmarks.peers.sctransform_in_memory import gene_stats
from musegnn.coexpression.sparkx import (
    KERNELS,
    SparkXBasis,
    SparkXScan,
    adjust_by,
    combine_cauchy,
    exact_p_values,
    sparkx,
)


def tissue(seed: int, *, n_cells: int = 120, n_genes: int = 40, axes: int = 2):
    rng = np.random.default_rng(seed)
    coords = rng.uniform(0, 30, (n_cells, axes))
    counts = rng.poisson(rng.gamma(1.0, 1.0, n_genes) + 0.2, (n_cells, n_genes))
    counts[:, 0] = rng.poisson(0.5 + 4.0 * (coords[:, 0] > 15))
    counts[:, 1] += 1
    return csr_matrix(counts.astype(np.int32)), coords


def transforms(coords: np.ndarray) -> list[np.ndarray]:
    """Write the eleven transforms of the paper out."""
    c = coords - coords.mean(axis=0)
    lengths = [np.quantile(np.abs(c), q, axis=0) for q in (0.2, 0.4, 0.6, 0.8, 1.0)]
    return [c, *(np.exp(-(c**2) / (2 * s**2)) for s in lengths), *(np.cos(2 * np.pi * c / s) for s in lengths)]


def dense_statistics(counts: csr_matrix, coords: np.ndarray) -> np.ndarray:
    y = counts.toarray().astype(np.float64)
    columns = []
    for transform in transforms(coords):
        z = transform - transform.mean(axis=0)
        projected = y.T @ z
        middle = np.einsum("gd,dg->g", projected, np.linalg.solve(z.T @ z, projected.T))
        columns.append(len(y) * middle / (y * y).sum(axis=0))
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_statistics_follow_the_dense_algebra(axes):
    counts, coords = tissue(0, axes=axes)
    result = sparkx(counts, coords)
    assert result.skipped == ()
    np.testing.assert_allclose(result.statistic, dense_statistics(counts, coords), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_p_values_follow_the_closed_form(axes):
    counts, coords = tissue(1, axes=axes)
    result = sparkx(counts, coords)
    y = counts.toarray().astype(np.float64)
    scale = 1.0 - len(y) * y.mean(axis=0) ** 2 / (y * y).sum(axis=0)
    expected = chi2.sf(result.statistic / scale[:, None], axes)
    np.testing.assert_allclose(result.p_kernel, expected, rtol=1e-9)
    np.testing.assert_allclose(result.p_kernel, exact_p_values(result.statistic, scale[:, None], axes), rtol=1e-12)


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 130))
def test_blocks_of_any_size_give_the_same_tests(rows):
    counts, coords = tissue(2)
    counts, stats = counts.astype(np.int32), gene_stats(counts)
    basis = SparkXBasis(coords)
    scan, merged = SparkXScan(basis, counts.shape[1]), SparkXScan(basis, counts.shape[1])
    for start in range(0, len(coords), rows):
        part = slice(start, start + rows)
        scan.update(counts[part], coords[part])
        one = SparkXScan(basis, counts.shape[1])
        one.update(counts[part], coords[part])
        merged.merge(one.cross, one.n_seen)
    whole = sparkx(counts, coords)
    np.testing.assert_allclose(scan.result(stats).statistic, whole.statistic, rtol=1e-12)
    np.testing.assert_allclose(merged.result(stats).statistic, whole.statistic, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(scan.result(stats).p_adjusted, whole.p_adjusted, rtol=1e-9)


@pytest.mark.parametrize("q", [1, 3])
def test_covariates_are_taken_out(q):
    """Against the definition with whole projection matrices."""
    counts, coords = tissue(12)
    rng = np.random.default_rng(1)
    covariates = np.column_stack([coords[:, 0] ** 2, rng.normal(size=(len(coords), 3))])[:, :q]
    result = sparkx(counts, coords, covariates)
    design = np.column_stack([np.ones(len(coords)), covariates])
    out = np.eye(len(coords)) - design @ np.linalg.pinv(design)
    y = counts.toarray().astype(np.float64)
    centred = coords - coords.mean(axis=0)
    lengths = np.quantile(np.abs(centred), [0.2, 0.4, 0.6, 0.8, 1.0], axis=0)
    transforms = [centred, *(np.exp(-(centred**2) / (2 * s**2)) for s in lengths)]
    transforms += [np.cos(2 * np.pi * centred / s) for s in lengths]
    squares = (y * y).sum(axis=0)
    scale = np.einsum("ij,ij->j", y, out @ y) / squares
    for k, z in enumerate(transforms):
        z = out @ z  # noqa: PLW2901  the published formula
        projected = z @ np.linalg.solve(z.T @ z, z.T @ y)
        expected = len(y) * np.einsum("ij,ij->j", y, projected) / squares
        np.testing.assert_allclose(result.statistic[:, k], expected, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(result.p_kernel[:, k], np.exp(-expected / (2 * scale)), rtol=1e-7)


def test_covariates_that_do_not_serve_are_refused():
    counts, coords = tissue(13)
    with pytest.raises(ValueError, match="not collinear"):
        sparkx(counts, coords, np.column_stack([coords[:, 0], 2 * coords[:, 0]]))
    with pytest.raises(ValueError, match="finite covariates"):
        sparkx(counts, coords, coords[1:])


def test_place_and_unit_of_coordinates_do_not_matter():
    counts, coords = tissue(3)
    moved = sparkx(counts, 250.0 * coords + np.array([1e4, -3e3]))
    np.testing.assert_allclose(moved.statistic, sparkx(counts, coords).statistic, rtol=1e-8, atol=1e-9)


def test_gene_scale_does_not_matter():
    counts, coords = tissue(3)
    np.testing.assert_allclose(sparkx(5 * counts, coords).p, sparkx(counts, coords).p, rtol=1e-10)


def test_p_values_are_uniform_without_spatial_pattern():
    rng = np.random.default_rng(5)
    counts = csr_matrix(rng.poisson(2.0, (300, 600)))
    result = sparkx(counts, rng.uniform(0, 1, (300, 2)))
    for k in (0, 3, 8):
        assert kstest(result.p_kernel[:, k], "uniform").pvalue > 1e-3


def test_gene_with_a_spatial_pattern_comes_first():
    counts, coords = tissue(4)
    result = sparkx(counts, coords)
    assert result.ranking()[0] == 0
    assert result.p_adjusted[0] < 1e-6
    assert np.median(result.p_adjusted) == 1.0


def test_empty_cells_and_genes_take_no_part():
    counts, coords = tissue(6)
    wide = np.zeros((122, 42), np.int32)
    wide[1:121, 1:41] = counts.toarray()
    full = sparkx(csr_matrix(wide), np.vstack([[900.0, 900.0], coords, [-50.0, 3.0]]))
    assert np.flatnonzero(np.isnan(full.p)).tolist() == [0, 41]
    np.testing.assert_allclose(full.p_adjusted[1:41], sparkx(counts, coords).p_adjusted, rtol=1e-10)
    assert sorted(full.ranking()) == list(range(1, 41))


def test_constant_gene_is_not_significant():
    counts, coords = tissue(7)
    dense = counts.toarray()
    dense[:, 5] = 3
    result = sparkx(csr_matrix(dense), coords)
    assert result.p_kernel[5].tolist() == [1.0] * len(KERNELS)
    assert result.p[5] == 1.0


@pytest.mark.parametrize(("low", "high"), [(0.0, 2.0), (0.1, 0.7), (1 / 3, 1234.56789)])
def test_degenerate_kernels_are_skipped_and_named(low, high):
    rng = np.random.default_rng(8)
    coords = rng.permutation(np.repeat([[low, low], [low, high], [high, low], [high, high]], 25, axis=0))
    counts = csr_matrix(rng.poisson(2.0, (100, 6)))
    result = sparkx(counts, coords)
    assert result.skipped == KERNELS[1:]
    assert np.isnan(result.p_kernel[:, 1:]).all()
    np.testing.assert_allclose(result.p, result.p_kernel[:, 0], rtol=1e-12)


def test_zero_length_scale_skips_its_two_kernels():
    rng = np.random.default_rng(9)
    x = np.concatenate([np.zeros(60), rng.permutation(np.concatenate([np.arange(1.0, 51.0), -np.arange(1.0, 51.0)]))])
    result = sparkx(csr_matrix(rng.poisson(2.0, (160, 4))), np.column_stack([x, rng.uniform(0, 1, 160)]))
    assert result.skipped == ("gaussian1", "cosine1")
    assert np.isfinite(result.p).all()


@pytest.mark.parametrize("slope", [0.0, 2.0])
def test_cells_on_a_line_are_refused(slope):
    counts, coords = tissue(10)
    coords[:, 1] = 4.0 + slope * coords[:, 0]
    with pytest.raises(ValueError, match="span their 2 axes"):
        sparkx(counts, coords)


def test_wrong_input_is_named():
    counts, coords = tissue(11)
    with pytest.raises(ValueError, match="coordinates of 120 cells, got 119"):
        sparkx(counts, coords[1:])
    with pytest.raises(ValueError, match="1 cells with others"):
        sparkx(counts, np.where(coords == coords[3], np.nan, coords))
    with pytest.raises(ValueError, match="shape"):
        SparkXBasis(coords[:, 0])
    scan = SparkXScan(SparkXBasis(coords), 40)
    scan.update(counts[:50].astype(np.int32), coords[:50])
    with pytest.raises(ValueError, match="120 cells, got 50"):
        scan.result(gene_stats(counts))


def cauchy(p: np.ndarray) -> float:
    with mpmath.workdps(60):
        mean = mpmath.fsum(mpmath.cot(mpmath.pi * mpmath.mpf(float(v))) for v in p) / len(p)
        return float(mpmath.atan2(1, mean) / mpmath.pi)


@settings(max_examples=60, deadline=None)
@given(exponents=st.lists(st.floats(-300, -1e-9), min_size=1, max_size=11))
def test_combination_is_exact_in_the_lower_tail(exponents):
    p = 10.0 ** np.array(exponents)
    assert combine_cauchy(p[None])[0] == pytest.approx(cauchy(p), rel=1e-12)


@pytest.mark.parametrize("p", [[0.5, 0.5], [0.9999999, 0.3], [1 - 2**-53, 0.2], [1e-17, 0.999], [0.7, 0.71, 0.69]])
def test_combination_is_exact_at_the_upper_end(p):
    assert combine_cauchy(np.array([p]))[0] == pytest.approx(cauchy(np.array(p)), rel=1e-9)


def test_combination_of_equal_values_is_their_value():
    p = np.geomspace(1e-250, 0.99, 40)
    np.testing.assert_allclose(combine_cauchy(np.repeat(p[:, None], 11, axis=1)), p, rtol=1e-12)


def test_combination_at_zero_and_one():
    assert combine_cauchy(np.array([[0.0, 0.4], [1.0, 0.4], [0.0, 1.0]])).tolist() == [0.0, 1.0, 0.0]
    for bad in (np.nan, -0.1, 1.1):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            combine_cauchy(np.array([[bad, 0.5]]))


@settings(max_examples=40, deadline=None)
@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_adjustment_agrees_with_scipy(p):
    np.testing.assert_allclose(adjust_by(np.array(p)), false_discovery_control(p, method="by"), rtol=1e-12, atol=1e-300)


def test_adjustment_of_nothing_is_nothing():
    assert adjust_by(np.zeros(0)).shape == (0,)
