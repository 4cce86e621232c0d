"""Change of co-expression on statistics of known distribution, and on planted rewiring."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from musegnn.analysis.change import Coexpression, changes, combine, draw, judge, log_change, power_of
from musegnn.coexpression.cscore import cscore

N_GENES, N_CELLS, MODULE = 150, 700, 30


def simulate(rng, *, n_cells=N_CELLS, module_of=None, level=None):
    """Draw counts of genes in two modules and of others, all of the same marginal distribution but for `level`."""
    module_of = default_modules() if module_of is None else module_of
    factors = np.column_stack([rng.gamma(2.0, 0.5, (n_cells, 2)), np.ones(n_cells)])
    depth = rng.integers(800, 2500, n_cells)
    own = rng.gamma(8.0, 1 / 8.0, (n_cells, N_GENES))
    rate = 8e-4 * (np.ones(N_GENES) if level is None else level)
    return rng.poisson(depth[:, None] * factors[:, module_of] * own * rate), depth


def default_modules():
    return np.repeat([0, 1, 2], [MODULE, MODULE, N_GENES - 2 * MODULE])


def coexpression(counts, depth):
    result = cscore(counts, depth)
    z = result.z.copy()
    np.fill_diagonal(z, np.nan)
    return Coexpression(z, power_of(result.fit.mu, result.fit.sigma, float(np.median(depth)), len(depth)))


def halves(counts, depth, rng, n=8):
    for _ in range(n):
        first, second = np.array_split(rng.permutation(len(depth)), 2)
        yield draw(*(coexpression(counts[rows], depth[rows]) for rows in (first, second)))


def compare(a, b, rng):
    return judge(draw(coexpression(*a), coexpression(*b)), [list(halves(*a, rng)), list(halves(*b, rng))])


def test_t_is_the_scaled_difference_where_powers_are_equal_and_has_unit_variance():
    rng = np.random.default_rng(0)
    power = np.full(40, 20.0)
    a, b = (Coexpression(rng.normal(size=(40, 40)), power) for _ in range(2))
    np.testing.assert_allclose(changes(a, b), (b.z - a.z) / np.sqrt(2.0))
    unequal = changes(a, Coexpression(b.z, 3 * power))
    assert abs(np.std(unequal) - 1.0) < 0.05


def test_more_cells_and_more_counts_are_no_change():
    """z grows with power; t does not."""
    rng = np.random.default_rng(0)
    correlation = rng.uniform(-0.4, 0.4, (40, 40))
    small, large = np.full(40, 10.0), rng.uniform(20.0, 60.0, 40)
    a, b = (Coexpression(correlation * np.sqrt(np.outer(p, p)), p) for p in (small, large))
    np.testing.assert_allclose(changes(a, b), 0.0, atol=1e-12)


def test_genes_that_are_not_tested_are_never_called():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(120, 120))
    z[3], z[:, 3] = np.nan, np.nan
    power = np.ones(120)
    assert np.isnan(log_change(z)[3])
    chance = [draw(Coexpression(rng.normal(size=z.shape), power), Coexpression(z, power)) for _ in range(4)]
    found = judge(draw(Coexpression(z, power), Coexpression(rng.normal(size=z.shape), power)), [chance])
    assert found.p_value[3] == 1.0
    assert np.isfinite(found.ratio).all()


def test_groups_are_joined_by_their_power():
    rng = np.random.default_rng(0)
    power, correlation = np.full(30, 16.0), 0.3
    parts = [Coexpression(correlation * 16.0 + rng.normal(size=(30, 30)), power) for _ in range(9)]
    joined = combine(parts)
    np.testing.assert_allclose(joined.power, 3 * power)
    off = ~np.eye(30, dtype=bool)
    assert abs(joined.z[off].mean() - correlation * 48.0) < 0.2
    assert abs(joined.z[off].std() - 1.0) < 0.1


def test_samples_of_one_population_have_uniform_p_values():
    rng = np.random.default_rng(1)
    p = np.concatenate([compare(simulate(rng), simulate(rng), rng).p_value for _ in range(2)])
    assert (p < 0.05).mean() <= 0.06
    assert kstest(p, "uniform").statistic < 0.09  # 300 genes that depend on one another


def test_planted_rewiring_is_found_and_doubled_expression_is_not():
    """Ten genes change from one module to the other; ten others of the modules double their expression."""
    rng = np.random.default_rng(2)
    modules, level = default_modules(), np.ones(N_GENES)
    rewired, doubled = np.arange(0, 10), np.arange(MODULE, MODULE + 10)
    modules[rewired] = 1
    level[doubled] = 2.0
    found = compare(simulate(rng), simulate(rng, module_of=modules, level=level), rng)
    others = np.setdiff1d(np.arange(N_GENES), rewired)
    above = (found.ratio[rewired][:, None] > found.ratio[others][None]).mean()
    assert above >= 0.9  # the area under the ROC curve
    assert (found.q_value[rewired] < 0.05).mean() >= 0.9
    assert (found.p_value[doubled] < 0.05).mean() <= 0.2
    assert not (found.q_value[doubled] < 0.05).any()


def test_doubled_expression_would_be_called_without_the_correction_for_power():
    rng = np.random.default_rng(3)
    level = np.ones(N_GENES)
    level[MODULE : MODULE + 10] = 4.0
    a, b = coexpression(*simulate(rng)), coexpression(*simulate(rng, level=level))
    uncorrected = [Coexpression(part.z, np.ones(N_GENES)) for part in (a, b)]
    changed = slice(MODULE, MODULE + 10)
    assert np.median(log_change(changes(*uncorrected))[changed]) > np.median(log_change(changes(a, b))[changed]) + 0.1


@pytest.mark.parametrize("same", [True, False])
def test_background_tells_how_different_two_samples_are(same):
    rng = np.random.default_rng(4)
    modules = np.arange(N_GENES) % 2
    other = modules if same else np.arange(N_GENES) // 2 % 2
    background = compare(simulate(rng, module_of=modules), simulate(rng, module_of=other), rng).background
    assert (background < 1.1) == same
