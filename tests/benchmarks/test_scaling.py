"""The simulation in cases that can be solved by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.scaling.gpu import LINKS, MODELS
from benchmarks.scaling.report import Point, write_report
from benchmarks.scaling.simulate import FREE, Dataset, Job, Link, all_reduce, explain, place, simulate

ONE = Dataset(1000, 0.1, 0.4, 0.1, 0.2, 0.05)


def test_one_worker_does_everything_in_turn():
    job, link = Job((ONE,) * 5), Link(1.0, 1.0)

    assert simulate(job, [0] * 5, link) == pytest.approx(5 * ONE.seconds)
    assert explain(job, link, 1).efficiency == pytest.approx(1.0)


@pytest.mark.parametrize("n", [2, 4])
def test_equal_loads_and_a_free_network_divide_the_time(n):
    owner = [k % n for k in range(8)]

    assert simulate(Job((ONE,) * 8), owner, FREE) == pytest.approx(8 * ONE.seconds / n)


def test_no_worker_computes_longer_than_a_round():
    random = np.random.default_rng(0)
    datasets = tuple(Dataset(int(random.integers(100, 2000)), *random.uniform(0.01, 1.0, 5)) for _ in range(30))
    job = Job(datasets)
    for n in (1, 3, 7):
        busy = np.bincount(place(job, n), [d.seconds for d in datasets])
        assert busy.max() <= simulate(job, place(job, n), Link(1e-4, 1e8)) * (1 + 1e-12)
        assert busy.sum() == pytest.approx(sum(d.seconds for d in datasets))


def test_the_slowest_worker_sets_the_pace():
    slow = Dataset(1000, 0.1, 0.9, 0.1, 0.2, 0.05)

    assert simulate(Job((ONE, slow)), [0, 1], FREE) == pytest.approx(slow.seconds)
    assert explain(Job((ONE, slow)), FREE, 2).uneven == pytest.approx(0.5 * 0.5 / slow.seconds)


@pytest.mark.parametrize(("travels", "waits"), [(0.4, 0.0), (0.5, 0.1)])
def test_the_exchange_hides_behind_the_reconstruction(travels, waits):
    link = Link(0.0, 4.0 * 1000 * 32 / travels)
    job = Job((ONE, ONE), shared_bytes=0.0)
    back, vote = travels, all_reduce(16.0, 2, link)

    assert simulate(job, [0, 1], link) == pytest.approx(ONE.seconds + waits + back + vote)


def test_all_reduce_is_a_ring():
    link = Link(1e-5, 1e9)

    assert all_reduce(1e6, 1, link) == 0.0
    assert all_reduce(1e6, 8, link) == pytest.approx(6e-5 + 2 * 7 / 8 * 1e-3)


def test_vectors_travel_once_to_each_worker():
    """All messages of a round have latency 1: one per receiving worker, however many datasets there compare."""
    nothing = Dataset(1000, 0.0, 0.0, 0.0, 0.0, 0.0)
    link, owner = Link(1.0, float("inf")), [k % 2 for k in range(40)]

    assert simulate(Job((nothing,) * 40), owner, link) - 2 * all_reduce(0.0, 2, link) == pytest.approx(1.0 + 1.0)


def test_a_simulation_is_a_function_of_its_inputs():
    job, link = Job((ONE,) * 9), Link(1e-4, 1e9)

    assert simulate(job, place(job, 4), link) == simulate(job, place(job, 4), link)


@pytest.mark.parametrize("gpus", [4, 30])
@pytest.mark.parametrize("model", MODELS)
def test_shares_of_a_round_add_up(model, gpus):
    job, link = MODELS[model].job(range(500, 2500, 100)), LINKS["slow"][0]
    found = explain(job, link, gpus)
    parts = (found.kernels, found.overhead, found.uneven, found.network)

    assert min(parts) >= 0.0
    assert sum(parts) == pytest.approx(1.0)
    seconds = simulate(job, place(job, gpus), link)
    assert found.efficiency == pytest.approx(sum(d.seconds for d in job.datasets) / (gpus * seconds))


def test_what_limits_is_what_takes_most():
    starts = Dataset(10, 1.0, 1.0, 1.0, 1.0, 1.0, overhead=4.0)

    assert explain(Job((ONE,) * 4, shared_bytes=1e9), Link(0.0, 1e7), 4).limit == "network"
    assert explain(Job((ONE,) * 4), FREE, 16).limit == "uneven"
    assert explain(Job((ONE,) * 4), FREE, 16).efficiency == pytest.approx(0.25)
    assert explain(Job((starts,) * 4), FREE, 4).limit == "overhead"
    assert explain(Job((ONE,) * 4), FREE, 4).limit == "kernels"


def test_the_report_says_what_was_simulated(tmp_path):
    points = []
    for gpus in (8, 64):
        job = MODELS["default"].job([1000] * 16)
        fast, slow = (explain(job, link, gpus) for link, _ in LINKS.values())
        points.append(Point("default", 16, 1000, gpus, 0.123, fast, slow))
    write_report(tmp_path / "scaling.md", points)
    text = (tmp_path / "scaling.md").read_text()

    assert "measured on a GPU or on a network" in text
    assert f"| default | 16 | 1000 | 8 | 0.1230 | {points[0].fast.efficiency:.2f} |" in text
    assert "uneven" in text
