"""Plans: even loads, stable under change, and refused when they cannot fit."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musegnn.cluster.plan import (
    Coefficients,
    DatasetCost,
    Plan,
    Work,
    dataset_costs,
    fit,
    gain,
    make_plan,
    measured,
    place,
)
from musegnn.errors import RunError
from musegnn.training.memory import BASE


def costs_of(seconds, *, groups=("a",), n_bytes=10**6):
    return [DatasetCost(f"d{k}", groups[k % len(groups)], s, n_bytes) for k, s in enumerate(seconds)]


@given(st.lists(st.floats(0.001, 100.0), min_size=1, max_size=40), st.integers(1, 8))
@settings(max_examples=200, deadline=None)
def test_loads_are_within_the_bound_and_nobody_is_idle(seconds, n_actors):
    n_actors = min(n_actors, len(seconds))
    plan = make_plan(costs_of(seconds), n_actors)

    assert set(plan.owner) == set(range(n_actors))
    loads = np.bincount(plan.owner, weights=seconds, minlength=n_actors)
    np.testing.assert_allclose(plan.loads, loads)
    assert max(loads) <= 1.03 * (sum(seconds) / n_actors + max(seconds)) * (1 + 1e-12)
    assert plan == make_plan(costs_of(seconds), n_actors)


def test_equal_datasets_are_shared_out_evenly():
    plan = make_plan(costs_of([1.0] * 12), 4)

    assert np.bincount(plan.owner).tolist() == [3, 3, 3, 3]
    assert plan.imbalance == 1.0


def test_a_long_dataset_gets_an_actor_of_its_own():
    plan = make_plan(costs_of([1.0, 1.0, 1.0, 9.0, 1.0]), 2)

    assert [k for k, owner in enumerate(plan.owner) if owner == plan.owner[3]] == [3]


def test_near_ties_keep_groups_together():
    plan = make_plan(costs_of([1.0] * 8, groups=("a", "b")), 2)

    assert plan.owner[0] == plan.owner[2] == plan.owner[4] == plan.owner[6] != plan.owner[1]


def test_who_has_a_dataset_keeps_it_where_that_costs_little():
    held = {0: 1, 1: 0, 2: 0, 3: 1}
    plan = make_plan(costs_of([1.0, 1.001, 1.0, 1.001]), 2, held=held)

    assert plan.owner == (1, 0, 0, 1)


def test_memory_binds_before_time():
    costs = [DatasetCost("big", "a", 1.0, 3 * 10**9), DatasetCost("wide", "a", 1.0, 3 * 10**9)]
    costs += [DatasetCost(f"small{k}", "a", 0.1, 10**8) for k in range(4)]
    plan = make_plan(costs, 2, memory=BASE + 4 * 10**9)

    assert plan.owner[0] != plan.owner[1]
    with pytest.raises(RunError, match=r"E411.*none of 1 actors.*use 2 actors"):
        make_plan(costs, 1, memory=BASE + 4 * 10**9)
    with pytest.raises(RunError, match=r"E411.*big alone needs"):
        make_plan(costs, 2, memory=BASE + 10**9)


@pytest.mark.parametrize("n", [0, 4])
def test_more_actors_than_datasets_are_refused(n):
    with pytest.raises(ValueError, match="actors for 3 datasets"):
        make_plan(costs_of([1.0] * 3), n)


def test_a_new_plan_must_save_a_tenth():
    seconds = [1.0, 1.0, 1.0, 1.0]
    even = place(costs_of(seconds), [0, 0, 1, 1])

    assert gain(even, costs_of(seconds)) == 0.0
    assert gain(even, costs_of([1.0, 1.0, 1.0, 1.05])) == 0.0
    assert gain(even, costs_of([2.0, 2.0, 0.5, 0.5])) == pytest.approx(1.5)


def test_measurements_replace_predictions_and_scale_the_others():
    costs = costs_of([1.0, 2.0, 4.0])
    found = measured(costs, {"d0": 3.0, "d1": 6.0})

    assert [c.seconds for c in found] == [3.0, 6.0, 12.0]
    assert measured(costs, {}) == costs


def test_fitted_coefficients_come_back():
    random = np.random.default_rng(0)
    known = Coefficients(2e-9, 3e-9, 4e-11, 0.01)
    work = [Work(*(10.0 ** random.uniform(6, 9, 3))) for _ in range(20)]
    found = fit(work, [known.seconds(w) for w in work])

    for name in ("entry", "feature", "operation", "once"):
        assert getattr(found, name) == pytest.approx(getattr(known, name), rel=1e-6)


def test_a_plan_survives_json():
    plan = make_plan(costs_of([3.0, 1.0, 2.0]), 2)

    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert plan.sha256 != place(costs_of([3.0, 1.0, 2.0]), [0, 1, 0]).sha256


def test_larger_datasets_cost_more(cluster_run):
    store, config = cluster_run
    costs = dataset_costs(store, config)

    assert [c.name for c in costs] == [d.name for d in config.datasets]
    assert all(c.seconds > 0 and c.bytes > 0 for c in costs)
    assert costs[-1].seconds > costs[0].seconds
    assert costs[-1].bytes > costs[0].bytes
    assert {c.group for c in costs} == {"scrna", "spatial", "scatac"}
