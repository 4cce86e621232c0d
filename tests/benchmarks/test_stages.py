"""The stopwatch of stages, with a clock that a test turns."""

from __future__ import annotations

import pytest

from benchmarks.stages import STAGES, WARM_ROUNDS, Stopwatch, train_and_time
from benchmarks.training import Workload


def test_stages_are_timed_by_dataset_after_the_first_rounds():
    now = [0.0]
    watch = Stopwatch(lambda: now[0])
    for round_ in range(1, WARM_ROUNDS + 4):
        for stage, dataset, seconds in (("encode", "a", 1.0), ("encode", "b", 2.0), ("step", None, 0.5)):
            watch.enter(stage, round_, dataset)
            now[0] += 100.0 if round_ <= WARM_ROUNDS else seconds * (1.0 + 10.0 * (round_ == WARM_ROUNDS + 3))
    watch.enter("load", 0)

    assert watch.median("encode", "a") == pytest.approx(1.0)
    assert watch.median("encode", "b") == pytest.approx(2.0)
    assert watch.median("step") == pytest.approx(0.5)


def test_every_stage_of_every_dataset_is_timed():
    ticks = iter(range(10**6))
    work = Workload(2, 30, 10, 0.2)
    watch = train_and_time(lambda phases: work.engine({}, {}, phases=phases), 2, clock=lambda: float(next(ticks)))

    assert all(watch.median(stage, graph.name) > 0 for stage in STAGES for graph in work.graphs)
    assert watch.median("reduce") > 0
