"""Plans: even loads, stable under change, and refused when they cannot fit."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musegnn.cluster.cost import DatasetCost
from musegnn.cluster.moves import keep_in_place, rename
from musegnn.cluster.plan import Plan, gain, make_plan, moved_bytes, place
from musegnn.cluster.room import BASE, Room
from musegnn.errors import RunError


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
    plan = make_plan(costs_of([1.0] * 8, groups=("a", "b", "b", "a")), 2)

    assert plan.owner == (0, 1, 1, 0, 0, 1, 1, 0)


def test_who_has_a_dataset_keeps_it_where_that_costs_little():
    held = {0: 1, 1: 0, 2: 0, 3: 1}
    plan = make_plan(costs_of([1.0, 1.001, 1.0, 1.001]), 2, held=held)

    assert plan.owner == (1, 0, 0, 1)


def test_memory_binds_before_time():
    costs = [DatasetCost("big", "a", 1.0, 3 * 10**9), DatasetCost("wide", "a", 1.0, 3 * 10**9)]
    costs += [DatasetCost(f"small{k}", "a", 0.1, 10**8) for k in range(4)]
    plan = make_plan(costs, 2, memory=BASE + 4 * 10**9)

    assert plan.owner[0] != plan.owner[1]
    with pytest.raises(RunError, match=r"E411.*do not fit into 1 actors.*use 2 actors"):
        make_plan(costs, 1, memory=BASE + 4 * 10**9)
    with pytest.raises(RunError, match=r"E411.*big alone needs about 3.6 GB, got 1.6 GB"):
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


def test_a_plan_survives_json():
    plan = make_plan(costs_of([3.0, 1.0, 2.0]), 2)

    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert plan.sha256 != place(costs_of([3.0, 1.0, 2.0]), [0, 1, 0]).sha256


def test_long_and_large_need_not_be_the_same_dataset():
    """By seconds alone both large datasets, which are short, come last and meet a full actor."""
    seconds, n_bytes = [4.0, 4.0, 2.0, 1.0], [2, 3, 5, 6]
    costs = [DatasetCost(f"d{k}", "a", s, b * 10**9) for k, (s, b) in enumerate(zip(seconds, n_bytes, strict=True))]
    plan = make_plan(costs, 2, memory=BASE + 8 * 10**9)

    assert {frozenset(i for i in range(4) if plan.owner[i] == rank) for rank in (0, 1)} == {
        frozenset({0, 3}),
        frozenset({1, 2}),
    }


def test_the_number_of_actors_that_is_advised_will_do():
    costs = [DatasetCost(f"d{k}", "a", 1.0, (5 + k % 3) * 10**8, everywhere=10**7) for k in range(20)]
    memory = BASE + 15 * 10**8
    with pytest.raises(RunError, match="use ") as caught:
        make_plan(costs, 2, memory=memory)
    n = int(caught.value.fix.split("use ")[1].split(" ")[0])

    owner = make_plan(costs, n, memory=memory).owner
    assert all(Room(costs, memory).holds([i for i in range(20) if owner[i] == rank]) for rank in range(n))
    with pytest.raises(RunError):
        make_plan(costs, n - 1, memory=memory)


def test_an_actor_takes_shared_layers_once_and_the_largest_step_only():
    costs = [
        DatasetCost("one", "a", 1.0, 100, step=40, shared=7, everywhere=1000),
        DatasetCost("two", "a", 1.0, 200, step=30, shared=7, everywhere=2000),
        DatasetCost("three", "b", 1.0, 300, step=50, shared=5, everywhere=4000),
    ]
    room = Room(costs, None)

    assert room.taken([]) == BASE + 7000
    assert room.taken([0]) == BASE + 7000 + 100 + 40 + 7
    assert room.taken([0, 1]) == BASE + 7000 + 300 + 40 + 7
    assert room.taken([0, 1, 2]) == BASE + 7000 + 600 + 50 + 12


sizes = st.tuples(st.floats(0.01, 10.0), st.integers(1, 50), st.integers(0, 20), st.sampled_from("abc"))


@given(st.lists(sizes, min_size=2, max_size=25), st.integers(1, 5), st.floats(1.0, 3.0))
@settings(max_examples=200, deadline=None)
def test_no_plan_takes_more_memory_than_there_is(found, n_actors, plenty):
    costs = [DatasetCost(f"d{k}", g, s, b, step=p, shared=3, everywhere=1) for k, (s, b, p, g) in enumerate(found)]
    n_actors = min(n_actors, len(costs))
    memory = round(BASE + len(costs) + plenty * (sum(c.bytes for c in costs) / n_actors + 29))
    room = Room(costs, memory)
    try:
        owner = make_plan(costs, n_actors, memory=memory).owner
    except RunError:
        return
    held = dict(enumerate((np.arange(len(costs)) * 7 % n_actors).tolist()))
    for after in (owner, make_plan(costs, n_actors, memory=memory, held=held).owner):
        assert all(room.holds([i for i, r in enumerate(after) if r == rank]) for rank in range(n_actors))


@given(st.lists(st.tuples(st.floats(0.1, 10.0), st.integers(1, 100)), min_size=2, max_size=25), st.integers(2, 5))
@settings(max_examples=200, deadline=None)
def test_a_plan_of_what_is_held_is_as_good_and_moves_no_more(found, n_actors):
    costs = [DatasetCost(f"d{k}", "a", s, b) for k, (s, b) in enumerate(found)]
    n_actors = min(n_actors, len(costs))
    held = {i: i * 7 % n_actors for i in range(len(costs)) if i % 5}
    fresh, kept = make_plan(costs, n_actors), make_plan(costs, n_actors, held=held)

    assert max(kept.loads) <= 1.03 * max(fresh.loads) * (1 + 1e-9)
    assert moved_bytes(costs, held, kept.owner) <= moved_bytes(costs, held, fresh.owner)
    assert set(kept.owner) == set(range(n_actors))
    assert kept == make_plan(costs, n_actors, held=held)


def test_one_dataset_is_moved_where_one_is_enough():
    costs = [DatasetCost(f"d{k}", "a", 1.0 + k / 1000, 10 - k) for k in range(9)]
    held = dict(enumerate([0, 0, 0, 0, 1, 1, 1, 2, 2]))
    plan = make_plan(costs, 3, held=held)

    assert sum(held[i] != rank for i, rank in enumerate(plan.owner)) == 1
    assert max(plan.loads) < 3.1


def test_a_lost_actor_moves_only_its_own_datasets():
    costs = costs_of([1.0] * 12)
    held = {i: i % 4 for i in range(12) if i % 4 != 3}
    plan = make_plan(costs, 3, held=held)

    assert all(plan.owner[i] == rank for i, rank in held.items())
    assert np.bincount(plan.owner).tolist() == [4, 4, 4]


def test_actors_of_a_plan_are_renamed_after_what_they_hold():
    costs = [DatasetCost(f"d{k}", "a", 1.0, b) for k, b in enumerate([5, 1, 7, 1])]
    owner = np.array([0, 0, 1, 2])

    assert rename(costs, owner, {0: 2, 1: 0, 2: 0, 3: 1}, 3).tolist() == [2, 2, 0, 1]
    assert rename(costs, owner, {1: 1}, 3)[1] == 1


def test_a_step_that_does_not_fit_is_not_taken():
    """The idle actor would take the long dataset, which frees most per byte, if it had room for its step."""
    costs = [DatasetCost("long", "a", 2.0, 1, step=60), DatasetCost("one", "a", 1.0, 20)]
    costs += [DatasetCost("two", "a", 1.0, 20), DatasetCost("large", "a", 0.1, 50)]
    held = {0: 0, 1: 0, 2: 0, 3: 1}

    assert keep_in_place(costs, held, 2, Room(costs, None), longest=2.2).tolist() == [1, 0, 0, 1]
    assert keep_in_place(costs, held, 2, Room(costs, BASE + 105), longest=2.2).tolist() == [0, 1, 1, 1]
    assert keep_in_place(costs, held, 2, Room(costs, BASE + 100), longest=2.2) is None


def test_where_what_is_held_does_not_fit_actors_of_the_new_plan_are_renamed():
    costs = costs_of([1.0] * 4, n_bytes=50)
    held = {0: 1, 1: 1, 2: 1, 3: 0}

    assert make_plan(costs, 2, memory=BASE + 100).owner == (0, 1, 0, 1)
    assert make_plan(costs, 2, memory=BASE + 100, held=held).owner == (1, 0, 1, 0)


def test_an_actor_that_the_loads_do_not_need_gets_a_dataset():
    costs = [DatasetCost("long", "a", 10.0, 5), DatasetCost("short", "a", 0.1, 1)]

    assert make_plan(costs, 2, held={0: 0, 1: 0}).owner == (0, 1)
    assert set(make_plan(costs_of([0.0] * 3), 3).owner) == {0, 1, 2}


def test_a_thousand_actors_are_planned_in_seconds():
    random = np.random.default_rng(0)
    costs = costs_of(random.uniform(0.1, 1.0, 4000).tolist(), groups=tuple("abcdefgh"))
    plan = make_plan(costs, 1000)
    again = make_plan(costs, 1000, held=dict(enumerate(plan.owner)))

    assert again.owner == plan.owner
    assert plan.imbalance < 1.2
