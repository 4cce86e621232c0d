"""Decisions of the controller, with actors that only say how they ended."""

from __future__ import annotations

import time
from dataclasses import replace
from unittest.mock import MagicMock

import pytest

from musegnn.cluster.actor_handle import ActorHandle
from musegnn.cluster.controller import MAX_FAILURES, Controller
from musegnn.cluster.messages import ActorInfo, Heartbeat, TaskResult
from musegnn.cluster.options import ClusterOptions, Timeouts
from musegnn.cluster.placement import DatasetCost
from musegnn.errors import ConfigError, RunError
from musegnn.training.phases import PhaseState

COSTS = [DatasetCost(f"d{k}", 1.0, 1) for k in range(6)]
NOW = PhaseState(round=3, phase="compare", dataset="d1", since=0.0, count=1)
DONE = TaskResult(outcome="done", now=NOW)


def ended(outcome, **about):
    return TaskResult(outcome=outcome, now=NOW, message=f"it {outcome}", **about)


class Pool:
    """Actors that end every process group as listed; ``None``: the actor dies."""

    def __init__(self, *groups, seconds=None, actors_reach=()):
        self.actors, self.tasks = [], []
        self._groups, self._seconds = list(groups), seconds or {}
        self.poll = self.leave = lambda *_: None
        self.hears_nobody = self.host_answers = lambda *_: False
        self.offers = lambda: "hosts: none"
        self.stacks = lambda _: ""
        self.end = lambda actor, why: setattr(actor, "dead", why)
        self.starting = ()
        self.broken = list(actors_reach)

    @property
    def ready(self):
        return [actor for actor in self.actors if actor.ready]

    @property
    def aside(self):
        return [actor for actor in self.actors if actor.aside]

    def broken_links(self, group):
        return self.broken.pop(0) if self.broken else []

    def start_actors(self, n):
        info = ActorInfo(pid=1, host="h", hostname="h", ping_port=1, device="cpu", evidence=None)
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


def run(pool, *, actors=2, timeouts=None, **options):
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
        timeouts=timeouts,
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


def test_an_actor_whose_gpu_is_lost_works_no_more():
    pool, ended_actors = Pool((ended("lost"), ended("failed", lost_device=True)), (DONE, DONE)), []

    def end(actor, why):
        actor.dead = why
        ended_actors.append((actor.name, why))

    pool.end = end
    run(pool)
    assert ended_actors == [("actor 1", "its GPU no longer answers")]
    assert [task.rank for task in pool.tasks] == [0, 1, 0, 1]
    assert len(pool.actors) == 3


def test_failures_at_one_place_stop_the_run_or_leave_the_dataset_out():
    failing = [(ended("failed"), ended("lost"))] * MAX_FAILURES
    with pytest.raises(RunError, match=r"E443.*3 actors failed in round 3 at d1; the last one: actor 0.*failed"):
        run(Pool(*failing))

    pool = Pool(*failing, (DONE, DONE))
    assert len(run(pool, on_repeated_failure="skip")) == MAX_FAILURES
    assert [task.left_out for task in pool.tasks[::2]] == [()] * MAX_FAILURES + [(1,)]


def test_of_two_actors_that_do_not_reach_each_other_one_is_put_aside():
    lost = (ended("lost"), ended("lost"), ended("lost"))
    pool = Pool(lost, (DONE, DONE), actors_reach=[[], [(0, 2)]])
    (failure,) = run(pool, actors=3)

    assert (failure.rank, failure.kind) == (2, "link")
    assert "actor 2" in str(failure)
    assert "actor 0" in str(failure)
    assert [actor.name for actor in pool.actors if actor.dead] == []
    assert pool.tasks[-1].size == 2
    assert len(pool.actors) == 3  # nobody is started in its place


def test_links_that_are_broken_from_the_start_cost_no_group():
    pool = Pool((DONE, DONE), actors_reach=[[(0, 1), (1, 2)]])
    assert run(pool, actors=3) == []
    assert [actor.name for actor in pool.actors if actor.aside] == ["actor 1"]


def test_a_run_that_cannot_go_on_without_a_link_names_both_ends():
    pool = Pool(actors_reach=[[(0, 1)]])
    with pytest.raises(RunError, match=r"E447.*actor 1.*actor 0.*do not reach each other.*TCP ports"):
        run(pool, actors=2, min_actors=2, timeouts=Timeouts(links=0.0))


def test_members_are_told_to_leave_and_those_that_answer_are_not_killed():
    pool = Pool((ended("lost"), None, ended("lost")), (DONE, DONE, DONE))
    (failure,) = run(pool, actors=3)

    assert (failure.rank, failure.kind) == (1, "died")
    assert [actor.name for actor in pool.actors if actor.dead] == ["actor 1"]


def test_failures_at_a_place_that_was_passed_count_anew():
    """Loading fails once in each of many groups, all of which train on."""
    failing = [(ended("lost"), None)] * (MAX_FAILURES + 2)
    pool = Pool(*failing, (DONE, DONE), seconds={f"d{k}": 1.0 for k in range(6)})
    assert len(run(pool)) == MAX_FAILURES + 2


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


def make_controller(pool):
    controller = Controller(
        pool, COSTS, ClusterOptions(actors=1), config=None, store="", newest_checkpoint=lambda: None,
        first_group_epoch=1, fence=lambda _: None, address=("h", 1), monitor=MagicMock(),
    )  # fmt: skip
    controller._monitor.median_round_seconds.return_value = 0.0
    return controller


def judge(phase, *, idle, broken=None, rank_idle=()):
    """Return why an actor that answers would be killed, and the failures of its group."""
    pool = Pool()
    pool.start_actors(1 + len(rank_idle))
    for actor, seconds in zip(pool.actors, (idle, *rank_idle), strict=True):
        now = NOW if actor is not pool.actors[0] else replace(NOW, phase=phase)
        actor.heartbeat = Heartbeat(
            group_epoch=0, now=now, spent=idle, rounds=3, loss=0.0, seconds={}, dataset_seconds={}, sent_bytes=0,
            peak_bytes=0,
        )  # fmt: skip
        actor.moved -= seconds
    controller = make_controller(pool)
    broken_at = None if broken is None else time.monotonic() - broken
    failures = controller._deadlocked(pool.actors, range(len(pool.actors)))
    return controller._reason_to_kill(pool.actors[0], broken_at), [failure.kind for failure in failures]


@pytest.mark.parametrize(
    ("phase", "about", "killed", "broken_up"),
    [
        ("encode", {"idle": 50.0}, "", False),
        ("encode", {"idle": 70.0, "rank_idle": (70.0,)}, "computed nothing in phase encode for 70 s", False),
        ("reduce", {"idle": 70.0}, "", False),
        ("load", {"idle": 400.0, "rank_idle": (1.0,)}, "", False),  # it waits for one that loads for long
        ("reduce", {"idle": 100.0, "rank_idle": (95.0,)}, "", True),
        ("checkpoint", {"idle": 100.0, "rank_idle": (95.0,)}, "", True),
        ("reduce", {"idle": 100.0, "broken": 10.0}, "", True),
        ("reduce", {"idle": 100.0, "broken": 40.0}, "did not leave the broken group", True),
        ("reduce", {"idle": 5.0, "broken": 40.0}, "", False),  # it loads or computes still
    ],
)
def test_an_actor_that_answers_is_judged_by_what_it_computes_and_receives(phase, about, killed, broken_up):
    reason, failures = judge(phase, **about)
    assert killed in reason
    assert bool(reason) == bool(killed)
    assert failures == ["lost"] * broken_up


def test_on_starved_hosts_an_actor_may_be_silent_for_longer():
    pool = Pool()
    pool.start_actors(2)
    pool.host_answers = lambda _: True
    controller = make_controller(pool)
    for actor in pool.actors:
        actor.last_heartbeat -= 20.0
    assert len(controller._kill_unresponsive(pool.actors[:1], {0}, None)) == 1
    pool.actors[1].longest_silence = 6.0
    assert controller._kill_unresponsive(pool.actors[1:], {0}, None) == []


def test_silence_is_judged_by_what_the_host_says():
    """A host that is there gets more time than one that does not answer: its connections may recover."""
    found = {}
    for answers in (False, True):
        for seconds in (5.0, 9.0, 14.0):
            pool = Pool()
            pool.start_actors(1)
            pool.host_answers = lambda _, answers=answers: answers
            pool.actors[0].last_heartbeat -= seconds
            controller = make_controller(pool)
            found[answers, seconds] = controller._reason_to_kill(pool.actors[0], None)[:4]
    assert found == {
        (False, 5.0): "", (False, 9.0): "sent", (False, 14.0): "sent",
        (True, 5.0): "", (True, 9.0): "", (True, 14.0): "sent",
    }  # fmt: skip
