"""The simulation in cases that can be solved by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.scaling import Dataset, Job, Machine, all_reduce, plan, simulate, split

FREE = Machine(latency=0.0, bandwidth=float("inf"))
ONE = Dataset(1000, 0.1, 0.4, 0.1, 0.2, 0.05)


def test_one_worker_does_everything_in_turn():
    found = simulate(Job((ONE,) * 5), [0] * 5, Machine(1.0, 1.0))

    assert found.seconds == pytest.approx(5 * ONE.seconds)
    assert found.efficiency == pytest.approx(1.0)


@pytest.mark.parametrize("n", [2, 4])
def test_equal_loads_and_a_free_network_divide_the_time(n):
    found = simulate(Job((ONE,) * 8), [k % n for k in range(8)], FREE)

    assert found.seconds == pytest.approx(8 * ONE.seconds / n)
    assert sum(found.waits.values()) == pytest.approx(0.0, abs=1e-12)


def test_nobody_computes_longer_than_a_round():
    random = np.random.default_rng(0)
    datasets = tuple(Dataset(int(random.integers(100, 2000)), *random.uniform(0.01, 1.0, 5)) for _ in range(30))
    job = Job(datasets)
    for n in (1, 3, 7):
        found = simulate(job, plan(job, n), Machine(1e-4, 1e8))
        assert found.busy.max() <= found.seconds
        assert found.busy.sum() == pytest.approx(sum(d.seconds for d in datasets))


def test_the_slowest_worker_sets_the_pace():
    slow = Dataset(1000, 0.1, 0.9, 0.1, 0.2, 0.05)
    found = simulate(Job((ONE, slow)), [0, 1], FREE)

    assert found.seconds == pytest.approx(slow.seconds)
    assert found.limit == "uneven loads"


def test_the_exchange_hides_behind_the_reconstruction():
    hidden = Machine(0.0, 4.0 * 1000 * 32 / 0.4)  # as long as the reconstruction
    slower = Machine(0.0, 4.0 * 1000 * 32 / 0.5)
    job = Job((ONE, ONE), shared_bytes=0.0)

    assert simulate(job, [0, 1], hidden).waits["exchange"] == pytest.approx(0.0, abs=1e-12)
    assert simulate(job, [0, 1], slower).waits["exchange"] == pytest.approx(0.1)
    assert simulate(job, [0, 1], slower).waits["return"] == pytest.approx(0.5)


def test_all_reduce_is_a_ring():
    machine = Machine(1e-5, 1e9)

    assert all_reduce(1e6, 1, machine) == 0.0
    assert all_reduce(1e6, 8, machine) == pytest.approx(6e-5 + 2 * 7 / 8 * 1e-3)


def test_workers_share_cores():
    found = simulate(Job((ONE,) * 4), [0, 1, 2, 3], Machine(0.0, float("inf"), cores=2))
    assert found.seconds == pytest.approx(2 * ONE.seconds)
    enough = simulate(Job((ONE,) * 4), [0, 1, 2, 3], Machine(0.0, float("inf"), cores=4))
    assert enough.seconds == pytest.approx(ONE.seconds)


def test_sharing_gives_back_what_others_leave():
    """Two workers on one core: the short one ends after twice its work, the long one after the sum."""
    short, long = Dataset(10, 1.0, 0.0, 0.0, 0.0, 0.0), Dataset(10, 3.0, 0.0, 0.0, 0.0, 0.0)
    found = simulate(Job((short, long)), [0, 1], Machine(0.0, float("inf"), cores=1), rounds=1)

    assert found.seconds == pytest.approx(4.0)


def test_teams_split_what_is_too_long():
    long = Dataset(1000, 0.1, 8.0, 0.1, 0.2, 0.05)
    job = Job((ONE,) * 8 + (long,))
    alone = simulate(job, plan(job, 4), FREE)
    teams = split(job, 4, FREE)
    shared = simulate(teams, plan(teams, 4), FREE)

    assert sum(d.seconds for d in teams.datasets) == pytest.approx(sum(d.seconds for d in job.datasets))
    assert shared.seconds < 0.7 * alone.seconds


def test_a_simulation_is_a_function_of_its_inputs():
    job = Job((ONE,) * 9)

    assert (
        simulate(job, plan(job, 4), Machine(1e-4, 1e9)).seconds
        == simulate(job, plan(job, 4), Machine(1e-4, 1e9)).seconds
    )
