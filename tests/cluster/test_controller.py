"""Decisions of the controller, with actors that only say how they ended."""

from __future__ import annotations

from unittest.mock import MagicMock

import pytest

from musegnn.cluster.actor_pool import ActorHandle
from musegnn.cluster.controller import MAX_FAILURES, Controller
from musegnn.cluster.cost import DatasetCost
from musegnn.cluster.messages import ActorInfo, Heartbeat, TaskResult
from musegnn.cluster.options import ClusterOptions
from musegnn.errors import ConfigError, RunError
from musegnn.training.phases import PhaseState

COSTS = [DatasetCost(f"d{k}", 1.0, 1) for k in range(6)]
NOW = PhaseState(round=3, phase="compare", dataset="d1", since=0.0, count=1)
DONE = TaskResult(outcome="done", now=NOW)


def ended(outcome, **about):
    return TaskResult(outcome=outcome, now=NOW, message=f"it {outcome}", **about)


class Pool:
    """Actors that end every process group as listed; ``None``: the actor dies."""

    def __init__(self, *groups, seconds=None):
        self.actors, self.tasks = [], []
        self._groups, self._seconds = list(groups), seconds or {}
        self.prepare_agents = self.poll = lambda *_: None
        self.starting = ()

    @property
    def ready(self):
        return [actor for actor in self.actors if actor.ready]

    def start_actors(self, n):
        info = ActorInfo(pid=1, started=1, node="n", host="h", device="cpu")
        self.actors += [ActorHandle(f"actor {len(self.actors) + k}", None, info=info) for k in range(n)]

    def begin(self, actor, task):
        actor.heartbeat = Heartbeat(
            group_epoch=task.group_epoch, now=NOW, spent=0.0, rounds=3,
            loss=0.0, seconds={}, sent_bytes=0, peak_bytes=0,
            dataset_seconds=self._seconds,
        )  # fmt: skip
        self.tasks.append(task)
        return task.group_epoch, task.rank

    def finished(self, running):
        return list(running)

    def result(self, actor, ref):
        found = self._groups[ref[0] - 1][ref[1]]
        if found is None:
            actor.dead = "killed"
        return found


def run(pool, *, actors=2, **options):
    monitor, fenced = MagicMock(), []
    monitor.median_round_seconds.return_value = 0.0
    Controller(
        pool,
        COSTS,
        ClusterOptions(actors=actors, **options),
        config=None,
        store="store.zarr",
        newest_checkpoint=lambda: None,
        first_group_epoch=1,
        fence=fenced.append,
        address=("h", 1),
        monitor=monitor,
    ).run()
    assert fenced == list(range(1, len(fenced) + 1))
    return [call.args[0] for call in monitor.failed.call_args_list]


@pytest.mark.parametrize(
    ("results", "rank", "kind"),
    [
        ((ended("lost"), ended("failed"), None), 1, "failed"),
        ((ended("lost"), ended("lost"), None), 2, "died"),
        ((ended("lost"), ended("lost"), ended("lost")), 0, "lost"),
    ],
)
def test_root_causes_come_before_their_consequences(results, rank, kind):
    (failure,) = run(Pool(results, (DONE, DONE, DONE)), actors=3)

    assert (failure.rank, failure.kind) == (rank, kind)
    assert failure.cause == f"{kind}: {'killed' if kind == 'died' else f'it {kind}'}"
    assert (failure.round, failure.phase, failure.dataset) == (3, "compare", "d1")


def test_an_error_that_would_come_again_is_raised_as_it_is():
    error = RunError("numbers are not finite", code="E410", fix="smaller rates")
    with pytest.raises(RunError, match=r"E410.*actor 1.*not finite.*smaller rates"):
        run(Pool((ended("lost"), ended("refused", error=error))))


def test_failures_at_one_place_stop_the_run_or_leave_the_dataset_out():
    failing = [(ended("failed"), ended("lost"))] * MAX_FAILURES
    with pytest.raises(RunError, match=r"E443.*3 actors failed in round 3 at d1; the last one: actor 0.*failed"):
        run(Pool(*failing))

    pool = Pool(*failing, (DONE, DONE))
    assert len(run(pool, on_repeated_failure="skip")) == MAX_FAILURES
    assert [task.left_out for task in pool.tasks[::2]] == [()] * MAX_FAILURES + [(1,)]


def test_datasets_stay_with_living_actors():
    pool = Pool((ended("lost"), ended("lost"), None), (DONE, DONE, DONE))
    run(pool, actors=3)
    before, after = pool.tasks[0].owner, pool.tasks[-1].owner

    assert [after[i] for i in range(6) if before[i] < 2] == [rank for rank in before if rank < 2]
    assert {after[i] for i in range(6) if before[i] == 2} == {2}  # that of the replacement


def test_measured_seconds_decide_the_next_placement():
    seconds = {"d0": 5.0} | {f"d{k}": 1.0 for k in range(1, 6)}
    pool = Pool((ended("lost"), None), (DONE, DONE), seconds=seconds)
    run(pool)
    owner = pool.tasks[-1].owner

    assert [i for i in range(6) if owner[i] == owner[0]] == [0]


@pytest.mark.parametrize(
    "options",
    [{"actors": 0}, {"actors": 2, "min_actors": 3}, {"actors": 2, "spares": -1}, {"address": "auto"}],
)
def test_options_that_contradict_one_another_are_refused(options):
    with pytest.raises(ConfigError, match="E30"):
        ClusterOptions(**options)
