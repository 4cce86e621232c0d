"""What `musegnn status` prints."""

from __future__ import annotations

import pytest

from musegnn.cluster.status import is_well, show_status


def test_many_problems_take_few_lines():
    problems = [f"W501: dataset_{k}: the vectors collapse" for k in range(80)]
    problems += [f"W503: dataset_{k}: nothing aligns it" for k in range(2)]
    status = {
        "state": "done", "age_seconds": 0.0, "rounds": 3, "total": 3, "group_epoch": 0, "seconds_per_round": 0.0,
        "actors": [], "stalled": [f"actor {k} is silent" for k in range(40)],
        "left_out": [f"dataset_{k}" for k in range(80)], "problems": problems, "failures": [],
    }  # fmt: skip
    lines = show_status(status).splitlines()
    assert lines[1:] == [
        "stalled: actor 0 is silent",
        "stalled: actor 1 is silent",
        "stalled: actor 2 is silent",
        "stalled: and 37 more",
        "left out: dataset_0, dataset_1, dataset_2 and 77 more",
        *problems[:3],
        "W501: and 77 more",
        *problems[80:],
    ]


@pytest.mark.parametrize(
    ("changes", "well"),
    [
        ({}, True),
        ({"state": "done", "age_seconds": 1e6}, True),
        ({"age_seconds": 16.0}, False),
        ({"age_seconds": 16.0, "hosts": []}, True),  # one process says nothing during a round
        ({"stalled": ["actor 1 is silent"]}, False),
        ({"state": "stopped"}, False),
    ],
)
def test_a_run_is_well_as_long_as_its_controller_is_heard(changes, well):
    status = {"state": "training", "age_seconds": 1.0, "stalled": [], "hosts": ["10.0.0.2"]} | changes
    assert is_well(status) is well


def test_the_device_and_its_memory_are_shown():
    actor = {
        "rank": 0, "host": "h", "pid": 7, "device": "cuda (H200, 143.0 GB)", "datasets": [1], "round": 2,
        "phase": "encode", "dataset": None, "since_seconds": 0.5, "sent_bytes": 0, "peak_bytes": 2 * 10**9,
        "device_bytes": 3 * 10**9,
    }  # fmt: skip
    status = {
        "state": "training", "age_seconds": 0.0, "rounds": 1, "total": 3, "group_epoch": 0, "seconds_per_round": 0.0,
        "actors": [actor], "stalled": [], "left_out": [], "problems": [], "failures": [],
    }  # fmt: skip
    line = show_status(status).splitlines()[1]
    assert "h pid 7 on cuda (H200, 143.0 GB) (1 datasets)" in line
    assert line.endswith("2.0 GB at most, 3.0 GB on the GPU")
