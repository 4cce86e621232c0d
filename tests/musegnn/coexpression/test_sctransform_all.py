"""The fit on all cells from sums over depth equals the fit that sees the cells."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from benchmarks.peers.sctransform_in_memory import count_table, fit_from_cells, fit_from_sums
from musegnn.coexpression.counts import CountTable
from musegnn.coexpression.sctransform import step_one_genes


def draw(seed: int, n: int, genes: int, spread: float) -> tuple[csr_matrix, np.ndarray]:
    rng = np.random.default_rng(seed)
    depth = rng.lognormal(8.0, spread, n)
    level = rng.gamma(1.0 / rng.uniform(0.05, 2.0, genes), rng.uniform(0.05, 2.0, genes), (n, genes))
    x = rng.poisson(depth[:, None] * level * rng.dirichlet(np.ones(genes) * 0.5))
    return csr_matrix(x.astype(np.int32)), np.asarray(x.sum(1), dtype=float)


@pytest.mark.parametrize("spread", [0.05, 0.4, 1.2])
@pytest.mark.parametrize("n_genes", [2000, 150])
def test_equals_the_fit_that_sees_all_cells(spread, n_genes):
    x, depth = draw(3, 1500, 400, spread)
    x, depth = x[depth > 0], depth[depth > 0]
    table = count_table(x)
    stats, median = table.stats(len(depth)), table.median_nonzero()
    expected = fit_from_cells(x, depth, stats, median_nonzero=median, min_cells=5, n_genes=n_genes)
    assert len(step_one_genes(stats, 5, seed=0, n_genes=n_genes)) == expected.report["step1_genes"]
    ours = fit_from_sums(x, depth, stats, median_nonzero=median, n_genes=n_genes)
    assert ours.report == {**expected.report, "bandwidth": pytest.approx(expected.report["bandwidth"], rel=1e-12)}
    np.testing.assert_array_equal(np.isnan(ours.theta), np.isnan(expected.theta))
    np.testing.assert_array_equal(np.isinf(ours.theta), np.isinf(expected.theta))
    finite = np.isfinite(expected.theta)
    # A flat likelihood turns 1e-12 in its sums into more in its maximum.
    np.testing.assert_allclose(ours.theta[finite], expected.theta[finite], rtol=1e-7)
    np.testing.assert_allclose(ours.intercept, expected.intercept, rtol=0, atol=1e-9)
    assert ours.min_variance == expected.min_variance


def test_tails_are_those_of_the_counts():
    x, _ = draw(4, 300, 9, 0.5)
    dense = x.toarray()
    dense[3, 2] = 700
    dense[:, 5] = 0
    table = CountTable(9)
    table.update(csr_matrix(dense), np.ones(300, dtype=bool))
    ends, values, tails = table.tails()
    for j, (first, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        np.testing.assert_array_equal(values[first:end], np.setdiff1d(dense[:, j], [0]))
        np.testing.assert_array_equal(tails[first:end], [(dense[:, j] >= value).sum() for value in values[first:end]])


def test_one_giant_cell_costs_no_memory():
    x, _ = draw(5, 200, 300, 0.5)
    dense = x.toarray()
    dense[11] = 1_000_000
    x, depth = csr_matrix(dense), dense.sum(axis=1).astype(float)
    table = count_table(x)
    stats, median = table.stats(200), table.median_nonzero()
    genes = step_one_genes(stats, 5, seed=0)
    made = table.take(genes).tails()
    assert sum(len(part) for part in made) <= 300 + 2 * x.nnz
    ours = fit_from_sums(x, depth, stats, median_nonzero=median, order=120)
    expected = fit_from_cells(x, depth, stats, median_nonzero=median, min_cells=5, n_genes=2000)
    np.testing.assert_allclose(ours.theta, expected.theta, rtol=1e-6)
    np.testing.assert_allclose(ours.intercept, expected.intercept, rtol=0, atol=1e-8)
