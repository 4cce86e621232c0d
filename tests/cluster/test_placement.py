"""Placements: even loads within the memory, datasets kept where they are loaded, and refusals that say what fits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musegnn.cluster.placement import NEAR, DatasetCost, Placement, actor_bytes, place_datasets
from musegnn.errors import RunError
from musegnn.units import ACTOR_PROCESS as BASE


def costs_of(seconds, *, n_bytes=10**6):
    return [DatasetCost(f"d{k}", s, n_bytes) for k, s in enumerate(seconds)]


def moved(home, owner):
    return sum(home.get(i, rank) != rank for i, rank in enumerate(owner))


@given(st.lists(st.floats(0.001, 100.0), min_size=1, max_size=40), st.integers(1, 8))
@settings(max_examples=200, deadline=None)
def test_loads_are_within_the_bound_and_no_actor_is_idle(seconds, n_actors):
    n_actors = min(n_actors, len(seconds))
    placement = place_datasets(costs_of(seconds), n_actors)

    assert set(placement.owner) == set(range(n_actors))
    loads = np.bincount(placement.owner, weights=seconds, minlength=n_actors)
    np.testing.assert_allclose(placement.loads, loads)
    assert max(loads) <= (sum(seconds) / n_actors + max(seconds)) * (1 + 1e-12)
    assert placement == place_datasets(costs_of(seconds), n_actors)


def optimum(seconds, n_actors):
    loads = (np.bincount(o, weights=seconds) for o in itertools.product(range(n_actors), repeat=len(seconds)))
    return min(map(max, loads))


@given(st.lists(st.floats(0.1, 10.0), min_size=3, max_size=7), st.integers(2, 3), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_no_load_exceeds_four_thirds_of_the_optimum(seconds, n_actors, seed):
    home = dict(enumerate(np.random.default_rng(seed).integers(0, n_actors, len(seconds)).tolist()))
    bound = (4 / 3 - 1 / (3 * n_actors)) * optimum(seconds, n_actors)

    assert max(place_datasets(costs_of(seconds), n_actors).loads) <= bound * (1 + 1e-9)
    assert max(place_datasets(costs_of(seconds), n_actors, home=home).loads) <= bound * (1 + 1e-9)


def test_equal_datasets_are_shared_out_evenly():
    placement = place_datasets(costs_of([1.0] * 12), 4)

    assert np.bincount(placement.owner).tolist() == [3, 3, 3, 3]
    assert placement.imbalance == 1.0


def test_a_long_dataset_gets_an_actor_of_its_own():
    placement = place_datasets(costs_of([1.0, 1.0, 1.0, 9.0, 1.0]), 2)

    assert [k for k, owner in enumerate(placement.owner) if owner == placement.owner[3]] == [3]


def test_datasets_stay_where_they_are_loaded_if_that_costs_little():
    home = {0: 1, 1: 0, 2: 0, 3: 1}
    placement = place_datasets(costs_of([1.0, 1.001, 1.0, 1.001]), 2, home=home)

    assert placement.owner == (1, 0, 0, 1)


@given(st.lists(st.floats(0.1, 10.0), min_size=2, max_size=25), st.integers(2, 5))
@settings(max_examples=200, deadline=None)
def test_staying_costs_at_most_a_twentieth(seconds, n_actors):
    costs, n_actors = costs_of(seconds), min(n_actors, len(seconds))
    home = {i: i * 7 % n_actors for i in range(len(costs)) if i % 5}
    fresh, kept = place_datasets(costs, n_actors), place_datasets(costs, n_actors, home=home)

    assert max(kept.loads) <= NEAR * max(fresh.loads) * (1 + 1e-9)
    assert set(kept.owner) == set(range(n_actors))
    assert kept == place_datasets(costs, n_actors, home=home)


@given(st.lists(st.floats(0.1, 10.0), min_size=2, max_size=25), st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_a_placement_of_what_is_loaded_already_moves_nothing(seconds, n_actors):
    costs, n_actors = costs_of(seconds), min(n_actors, len(seconds))
    owner = place_datasets(costs, n_actors).owner

    assert place_datasets(costs, n_actors, home=dict(enumerate(owner))).owner == owner


def test_a_lost_actor_moves_only_its_own_datasets():
    home = {i: i % 4 for i in range(12) if i % 4 != 3}
    placement = place_datasets(costs_of([1.0] * 12), 3, home=home)

    assert moved(home, placement.owner) == 0
    assert np.bincount(placement.owner).tolist() == [4, 4, 4]


def test_a_new_actor_takes_no_more_than_its_share():
    home = {i: i % 3 for i in range(12)}
    placement = place_datasets(costs_of([1.0] * 12), 4, home=home)

    assert moved(home, placement.owner) == 3
    assert np.bincount(placement.owner).tolist() == [3, 3, 3, 3]


def test_one_dataset_moves_where_one_is_enough():
    home = dict(enumerate([0, 0, 0, 0, 1, 1, 1, 2, 2]))
    placement = place_datasets([DatasetCost(f"d{k}", 1.0 + k / 1000, 10) for k in range(9)], 3, home=home)

    assert moved(home, placement.owner) == 1
    assert max(placement.loads) < 3.1


def test_no_actor_stays_idle():
    costs = [DatasetCost("long", 10.0, 5), DatasetCost("short", 0.1, 1)]

    assert place_datasets(costs, 2, home={0: 0, 1: 0}).owner == (0, 1)
    assert set(place_datasets(costs_of([0.0] * 3), 3).owner) == {0, 1, 2}


@pytest.mark.parametrize("n", [0, 4])
def test_more_actors_than_datasets_are_refused(n):
    with pytest.raises(ValueError, match="actors for 3 datasets"):
        place_datasets(costs_of([1.0] * 3), n)


def test_records_name_the_owners():
    placement = place_datasets(costs_of([3.0, 1.0, 2.0]), 2)
    record = placement.to_json()

    assert (tuple(record["owner"]), tuple(record["loads"])) == (placement.owner, placement.loads)
    assert record["sha256"] != Placement.of(costs_of([3.0, 1.0, 2.0]), [0, 1, 0]).to_json()["sha256"]


def test_memory_binds_before_time():
    costs = [DatasetCost("big", 1.0, 3 * 10**9), DatasetCost("wide", 1.0, 3 * 10**9)]
    costs += [DatasetCost(f"small{k}", 0.1, 10**8) for k in range(4)]
    placement = place_datasets(costs, 2, memory=BASE + 4 * 10**9)

    assert placement.owner[0] != placement.owner[1]
    with pytest.raises(RunError, match=r"E411.*do not fit into 1 actors.*use 2 actors"):
        place_datasets(costs, 1, memory=BASE + 4 * 10**9)
    with pytest.raises(RunError, match=r"E411.*big alone needs about 3.7 GB, got 1.7 GB"):
        place_datasets(costs, 2, memory=BASE + 10**9)


def test_long_and_large_need_not_be_the_same_dataset():
    """By seconds alone both large datasets, which are short, come last and meet a full actor."""
    seconds, n_bytes = [4.0, 4.0, 2.0, 1.0], [2, 3, 5, 6]
    costs = [DatasetCost(f"d{k}", s, b * 10**9) for k, (s, b) in enumerate(zip(seconds, n_bytes, strict=True))]
    placement = place_datasets(costs, 2, memory=BASE + 8 * 10**9)

    assert {frozenset(i for i in range(4) if placement.owner[i] == rank) for rank in (0, 1)} == {
        frozenset({0, 3}),
        frozenset({1, 2}),
    }


def fits(costs, owner, memory):
    owned = [[i for i, rank in enumerate(owner) if rank == actor] for actor in range(max(owner) + 1)]
    return all(actor_bytes(costs, datasets) <= memory for datasets in owned)


def test_the_number_of_actors_that_is_advised_will_do():
    costs = [DatasetCost(f"d{k}", 1.0, (5 + k % 3) * 10**8, everywhere=10**7) for k in range(20)]
    memory = BASE + 15 * 10**8
    with pytest.raises(RunError, match="use ") as caught:
        place_datasets(costs, 2, memory=memory)
    n = int(caught.value.fix.split("use ")[1].split(" ")[0])

    assert fits(costs, place_datasets(costs, n, memory=memory).owner, memory)
    with pytest.raises(RunError):
        place_datasets(costs, n - 1, memory=memory)


def test_an_actor_takes_the_largest_step_only():
    costs = [
        DatasetCost("one", 1.0, 100, step=40, everywhere=1000),
        DatasetCost("two", 1.0, 200, step=30, everywhere=2000),
        DatasetCost("three", 1.0, 300, step=50, everywhere=4000),
    ]

    assert actor_bytes(costs, []) == BASE + 7000
    assert actor_bytes(costs, [0]) == BASE + 7000 + 100 + 40
    assert actor_bytes(costs, [0, 1]) == BASE + 7000 + 300 + 40
    assert actor_bytes(costs, [0, 1, 2]) == BASE + 7000 + 600 + 50


sizes = st.tuples(st.floats(0.01, 10.0), st.integers(1, 50), st.integers(0, 20))


@given(st.lists(sizes, min_size=2, max_size=25), st.integers(1, 5), st.floats(1.0, 3.0))
@settings(max_examples=200, deadline=None)
def test_no_placement_takes_more_memory_than_there_is(found, n_actors, plenty):
    costs = [DatasetCost(f"d{k}", s, b, step=p, everywhere=1) for k, (s, b, p) in enumerate(found)]
    n_actors = min(n_actors, len(costs))
    memory = round(BASE + len(costs) + plenty * (sum(c.bytes for c in costs) / n_actors + 20))
    try:
        owner = place_datasets(costs, n_actors, memory=memory).owner
    except RunError:
        return
    home = dict(enumerate((np.arange(len(costs)) * 7 % n_actors).tolist()))
    assert fits(costs, owner, memory)
    assert fits(costs, place_datasets(costs, n_actors, memory=memory, home=home).owner, memory)


def test_a_home_without_memory_is_left():
    costs = costs_of([1.0] * 4, n_bytes=50)
    home = {0: 1, 1: 1, 2: 1, 3: 0}

    assert place_datasets(costs, 2, memory=BASE + 100).owner == (0, 1, 0, 1)
    assert place_datasets(costs, 2, memory=BASE + 100, home=home).owner == (1, 1, 0, 0)


def test_a_thousand_actors_are_placed_in_seconds():
    random = np.random.default_rng(0)
    costs = costs_of(random.uniform(0.1, 1.0, 4000).tolist())
    placement = place_datasets(costs, 1000)
    again = place_datasets(costs, 1000, home=dict(enumerate(placement.owner)))

    assert again.owner == placement.owner
    assert placement.imbalance < 1.2
