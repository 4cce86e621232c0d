"""The simulation in cases that can be solved by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.scaling import FREE, Dataset, Job, Machine, all_reduce, explain, owner_reduce, plan, simulate, split
from benchmarks.scaling_gpu import FAST, SLOW, Host, gpu_job, sizes
from benchmarks.scaling_report import Point, write_report

HOST = Host((1000, 5000, 20_000), (0.001, 0.002, 0.01), (0.001, 0.02, 0.3))
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
    assert explain(Job((ONE, slow)), [0, 1], FREE, 2).uneven == pytest.approx(0.5 * 0.5 / slow.seconds)


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


def test_all_reduce_goes_through_nodes():
    machine = Machine(1e-5, 1e9, per_node=8, local_latency=1e-6, local_bandwidth=1e11)

    within = 6e-6 + 2 * 7 / 8 * 1e6 / 1e11
    assert all_reduce(1e6, 8, machine) == pytest.approx(within)
    assert all_reduce(1e6, 32, machine) == pytest.approx(within + 4e-5 + 2 * 3 / 4 * 1e6 / 8e9)


def test_vectors_travel_faster_within_a_node():
    exchange = 4.0 * 1000 * 32
    machine = Machine(0.0, exchange / 0.5, per_node=2, local_bandwidth=exchange / 0.45)
    job = Job((ONE,) * 2, shared_bytes=0.0)

    assert simulate(job, [0, 1], machine).waits["exchange"] == pytest.approx(0.05)
    assert simulate(Job((ONE,) * 4, shared_bytes=0.0), [0, 1, 2, 3], machine).waits["exchange"] > 0.05


def test_vectors_travel_once_to_each_worker():
    """All messages of a round have latency 1: one per receiving worker, however many datasets there compare."""
    machine = Machine(1.0, float("inf"))
    waits = simulate(Job((Dataset(1000, 0.0, 0.0, 0.0, 0.0, 0.0),) * 40), [k % 2 for k in range(40)], machine).waits

    assert waits["exchange"] == waits["return"] == pytest.approx(1.0)


def test_owner_reduce_sends_each_group_home_and_back():
    """Group 0 is on three workers: two sums arrive at its home one after the other, two halves go back."""
    machine = Machine(0.0, 1e9)
    one, other = Dataset(10, 1.0, 0.0, 0.0, 0.0, 0.0, group=0), Dataset(10, 1.0, 0.0, 0.0, 0.0, 0.0, group=1)
    job = Job((one, one, one, other), group_bytes=1e6, shared_bytes=0.0)

    assert owner_reduce(job, [0, 1, 2, 3], machine) == pytest.approx(2e-3 + 1e-3)
    assert owner_reduce(Job((one, one, other), group_bytes=1e6), [0, 0, 1], machine) == 0.0
    assert simulate(job, [0, 1, 2, 3], machine).waits["reduce"] == pytest.approx(3e-3, rel=1e-3)


@pytest.mark.parametrize("gpus", [4, 30])
def test_shares_of_a_round_add_up(gpus):
    job = gpu_job(sizes(20, 2000, equal=False), gpus, HOST)
    found = explain(job, plan(job, gpus), SLOW, gpus)
    parts = (found.kernels, found.launches, found.host, found.uneven, found.network)

    assert min(parts) >= 0.0
    assert sum(parts) == pytest.approx(1.0)
    seconds = simulate(job, plan(job, gpus), SLOW).seconds
    assert found.efficiency == pytest.approx(sum(d.seconds for d in job.datasets) / (gpus * seconds))


def test_what_limits_is_what_takes_most():
    slow_links = explain(Job((ONE,) * 4, shared_bytes=1e9), [0, 1, 2, 3], Machine(0.0, 1e7), 4)
    idle = explain(Job((ONE,) * 4), [0, 1, 2, 3], FREE, 16)
    starts = Dataset(10, 1.0, 1.0, 1.0, 1.0, 1.0, launches=4.0)

    assert slow_links.limit == "network"
    assert idle.limit == "uneven"
    assert idle.efficiency == pytest.approx(0.25)
    assert explain(Job((starts,) * 4), [0, 1, 2, 3], FREE, 4).limit == "launches"
    assert explain(Job((ONE,) * 4), [0, 1, 2, 3], FREE, 4).limit == "-"


def test_overlaps_cost_nothing_where_all_pairs_are_kept():
    few, many = gpu_job([1000] * 20, 4, HOST), gpu_job([1000] * 4000, 4, HOST)

    assert few.datasets[0].host == pytest.approx(0.001)
    assert 0.0019 < many.datasets[0].host <= 0.002


def test_the_report_says_what_was_simulated(tmp_path):
    points = []
    for gpus in (8, 64):
        job = gpu_job([1000] * 16, gpus, HOST)
        owner = plan(job, gpus)
        fast, slow = (explain(job, owner, links, gpus) for links in (FAST, SLOW))
        points.append(Point(16, 1000, True, gpus, 0.123, fast, slow, fast.efficiency))
    write_report(tmp_path / "scaling.md", points, [(8, 0.2, 0.1)], HOST)
    text = (tmp_path / "scaling.md").read_text()

    assert "measured on a GPU or on a network" in " ".join(text.split())
    assert f"| 16 | 1000 | equal | 8 | 0.1230 | {points[0].fast.efficiency:.2f} |" in text
    assert "too few datasets" in text
    assert "by at most 50% up to 256 GPUs" in " ".join(text.split())
    assert (tmp_path / "scaling.png").stat().st_size > 10_000
