"""What the pool makes of actors that answer, refuse, or are silent, without Ray's processes."""

from __future__ import annotations

import socket
import time
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import ray.exceptions

from musegnn.cluster import actor_pool, links
from musegnn.cluster.actor_handle import ActorHandle
from musegnn.cluster.actor_pool import ActorPool
from musegnn.cluster.links import PingListener
from musegnn.cluster.messages import ActorInfo, Heartbeat
from musegnn.errors import ConfigError
from musegnn.training.phases import PhaseState

ACTOR = bytes(16)
UNAVAILABLE = ray.exceptions.ActorUnavailableError("the connection is gone", actor_id=ACTOR)


class Answer:
    """A reference that is ready, to an answer or an error."""

    def __init__(self, found=None):
        self.found = found


class FakeRay:
    """Ray with references that are :class:`Answer`, or ``None`` where no answer comes."""

    exceptions = ray.exceptions

    def __init__(self, head):
        self._head = head
        self.killed = []

    def get_runtime_context(self):
        return SimpleNamespace(gcs_address=self._head)

    def wait(self, refs, *, num_returns=1, timeout=None):
        done = [ref for ref in refs if isinstance(ref, Answer)][:num_returns]
        return done, [ref for ref in refs if ref not in done]

    def get(self, ref):
        if isinstance(ref.found, Exception):
            raise ref.found
        return ref.found

    def nodes(self):
        return [
            {"NodeManagerAddress": "10.0.0.1", "Alive": True, "Resources": {"CPU": 4.0}},
            {"NodeManagerAddress": "10.0.0.2", "Alive": False, "Resources": {}},
        ]

    def kill(self, handle):
        self.killed.append(handle)


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        return gone.getsockname()[1]


@pytest.fixture
def pool():
    listener = PingListener("127.0.0.1")
    made = ActorPool(FakeRay(f"127.0.0.1:{listener.port}"), "run", preflight=MagicMock())
    made.port = listener.port
    return made


def add(pool, answer, *, port=None, silent=0.0):
    """Add an actor whose next heartbeats are `answer`; ``None``: none comes."""
    info = ActorInfo(pid=1, host="127.0.0.1", hostname="h", ping_port=port or pool.port, device="cpu", evidence=None)
    handle = MagicMock()
    handle.heartbeat.remote.side_effect = lambda: object() if answer is None else Answer(answer)
    actor = ActorHandle(f"actor {len(pool.actors)}", handle, info=info)
    actor.last_heartbeat -= silent
    pool.actors.append(actor)
    return actor


def heartbeat(*, group_epoch=1, count=1, **more):
    return Heartbeat(
        group_epoch=group_epoch, now=PhaseState(1, "reduce", None, 0.0, count), spent=0.0, rounds=0, loss=0.0,
        seconds={}, dataset_seconds={}, sent_bytes=0, peak_bytes=0, **more,
    )  # fmt: skip


def test_time_in_which_the_controller_did_not_listen_is_no_silence(pool):
    actor = add(pool, None)
    pool.poll(0.0)
    actor.last_heartbeat -= 60.0
    pool._listened -= 60.0
    pool.poll(0.0)
    assert actor.silent < 5.0

    actor.last_heartbeat -= 60.0  # it did listen
    pool.poll(0.0)
    assert actor.silent > 55.0


def test_a_connection_that_fails_is_no_death_but_a_host_that_refuses_is(pool):
    living, gone = add(pool, UNAVAILABLE), add(pool, UNAVAILABLE, port=closed_port())
    pool.poll(0.01)
    assert living.dead == ""
    assert gone.dead == "its process is gone"
    assert living._asked is None  # it is asked again


def test_a_task_whose_connection_failed_ends_when_its_actor_answers_or_is_given_up(pool):
    actor, task = add(pool, None, silent=3.0), Answer(UNAVAILABLE)
    assert pool.finished({task: actor}) == []
    actor.last_heartbeat = time.monotonic()
    assert pool.finished({task: actor}) == [task]
    assert pool.result(actor, task).outcome == "lost"
    actor.dead = "sent no heartbeat"
    assert pool.finished({object(): actor})
    assert pool.result(actor, task) is None


def test_a_task_goes_on_through_an_interrupted_connection_until_its_actor_reports_the_end(pool):
    actor, task = add(pool, None), Answer(UNAVAILABLE)
    actor.began = 7
    actor.receive(heartbeat(group_epoch=7))
    assert pool.finished({task: actor}) == []
    actor.receive(heartbeat(group_epoch=7, result="its result"))
    assert pool.finished({task: actor}) == [task]
    assert pool.result(actor, task) == "its result"


@pytest.mark.parametrize("change", [{"count": 2}, {"thread_seconds": 0.1}, {"traffic": 1}, {}])
def test_an_actor_moves_that_enters_a_phase_computes_or_receives(pool, change):
    actor = add(pool, None)
    actor.receive(heartbeat())
    actor.moved -= 50.0
    actor.receive(heartbeat(**change))
    assert (actor.idle < 5.0) == bool(change)


def test_who_hears_nobody_asks_the_hosts_before_it_doubts_itself(pool, monkeypatch):
    add(pool, None, silent=20.0)
    assert not pool.hears_nobody()  # the host answers: the actor is frozen
    monkeypatch.setattr(actor_pool, "ping", lambda addresses, seconds: [links.Answer.SILENT] * len(addresses))
    assert pool.hears_nobody()
    add(pool, "a heartbeat")
    assert not pool.hears_nobody()


def test_a_head_that_is_gone_ends_the_run_in_one_line(pool):
    pool._head = f"127.0.0.1:{closed_port()}"
    pool.poll(0.0)
    pool._head_check_at, pool._head_answered = 0.0, time.monotonic() - actor_pool.HEAD_SECONDS - 1
    with pytest.raises(ConfigError, match=r"E305.*head of the Ray cluster has not answered for 26 s.*--resume"):
        pool.poll(0.0)


def test_actors_that_reach_the_others_again_work_again(pool):
    add(pool, None)
    actor = add(pool, None)
    actor.aside = "it and actor 0 do not reach each other"
    for missing, expected in (([0], True), ([], False)):
        actor.handle.unreachable.remote.return_value = Answer(missing)
        actor._recheck_at = 0.0
        pool.poll(0.0)
        pool.poll(0.0)
        assert bool(actor.aside) == expected


def test_all_end_with_the_pool_without_waiting_for_hosts_that_do_not_answer(pool, monkeypatch):
    monkeypatch.setattr(actor_pool, "END_SECONDS", 0.2)
    pool._ray.kill = lambda _: time.sleep(30)
    add(pool, None)
    began = time.monotonic()
    with pool:
        pass
    assert time.monotonic() - began < 5.0


def test_what_hosts_offer_is_said_beside_what_is_asked(pool):
    assert pool.offers() == "each asks for 1 CPU; hosts: 10.0.0.1 (4 CPU), 10.0.0.2 (gone)"


def test_gpus_that_are_asked_for_are_said_of_every_host():
    pool = ActorPool(FakeRay("127.0.0.1:1"), "run", preflight=MagicMock(), cpus=2, gpus=1)
    assert pool.offers().startswith("each asks for 2 CPU and 1 GPU; hosts: 10.0.0.1 (4 CPU and 0 GPU)")
