"""Actors of a training run: started, watched, and ended.

Ray places actors and reports those that have died. Each is asked for a heartbeat again and again here; one that does
not answer for long is frozen, or its host is cut off. Time in which nobody asked does not count as silence.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from musegnn.cluster.actor_handle import ActorHandle
from musegnn.cluster.links import PING_SECONDS, Answer, ping
from musegnn.cluster.messages import TaskResult
from musegnn.errors import ConfigError
from musegnn.text import some_of
from musegnn.training.phases import PhaseState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType

    from musegnn.cluster.messages import ActorInfo, TrainTask
    from musegnn.cluster.preflight import Preflight

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.25
DEAF_SECONDS = 1.0
"""Seconds between two polls from which on the controller was busy itself."""
STACKS_SECONDS = 2.0
RECHECK_SECONDS = 5.0
QUICK_PING_SECONDS = 0.3
END_SECONDS = 5.0
HEAD_CHECK_SECONDS = 5.0
MOST_HOSTS = 8
HEAD_SECONDS = 25.0
"""Silence of the head of the cluster after which a run stops; Ray itself ends this process after a minute."""


class ActorPool:
    """Actors of a run; all end when its context is left.

    Parameters
    ----------
    ray
        Ray's module, connected.
    cpus, gpus
        Resources that Ray sets aside for each actor.
    folder, device, memory, on_phase
        As in :class:`musegnn.cluster.actor.TrainerActor`.
    preflight
        What every actor has to prove before it gets work.
    environment
        Environment variables of the actors.
    """

    def __init__(
        self,
        ray: Any,  # an untyped module
        folder: str,
        *,
        preflight: Preflight,
        cpus: float = 1.0,
        gpus: int = 0,
        device: str = "cpu",
        memory: int | None = None,
        environment: Mapping[str, str] | None = None,
        on_phase: Callable[[TrainTask, PhaseState], None] | None = None,
    ) -> None:
        self._ray, self._arguments, self._preflight = ray, (folder, device, memory, on_phase), preflight
        self._options = {
            "num_cpus": cpus,
            "num_gpus": gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
            "scheduling_strategy": "SPREAD",  # Ray would fill the first host before it takes a second one
            "runtime_env": {"env_vars": dict(environment or {})},
        }
        self._count = itertools.count()
        self._listened = self._head_answered = time.monotonic()
        self._head: str = ray.get_runtime_context().gcs_address
        self._head_check_at = 0.0
        self.actors: list[ActorHandle] = []

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """End all actors."""
        ending = [self.end(actor, "the run is over") for actor in self.actors if not actor.dead]
        until = time.monotonic() + END_SECONDS
        for thread in ending:
            thread.join(max(0.0, until - time.monotonic()))

    def start_actors(self, n: int) -> None:
        """Start actors; they are ready later."""
        from musegnn.cluster.actor import TrainerActor

        remote = self._ray.remote(concurrency_groups={"control": 2})(TrainerActor)
        for _ in range(n):
            handle = remote.options(**self._options).remote(*self._arguments)
            name = f"actor {next(self._count)}"
            starting = handle.info.remote(self._preflight.question, name)
            self.actors.append(ActorHandle(name, handle, _starting=starting))

    @property
    def ready(self) -> list[ActorHandle]:
        """Actors that can be given a task, in the order they were started."""
        return [actor for actor in self.actors if actor.ready]

    @property
    def starting(self) -> list[ActorHandle]:
        """Actors that are not ready yet."""
        return [actor for actor in self.actors if actor.info is None and not actor.dead]

    @property
    def aside(self) -> list[ActorHandle]:
        """Actors that live and get no work for now."""
        return [actor for actor in self.actors if actor.aside and not actor.dead]

    def offers(self) -> str:
        """Return in words what each actor asks for, and what the hosts of the cluster have."""
        asked = {"CPU": self._options["num_cpus"], "GPU": self._options["num_gpus"]}
        kinds = [kind for kind, n in asked.items() if n]
        hosts = []
        for node in self._ray.nodes():
            has = [f"{node['Resources'].get(kind, 0):g} {kind}" for kind in kinds]
            hosts.append(f"{node['NodeManagerAddress']} ({' and '.join(has) if node['Alive'] else 'gone'})")
        wanted = " and ".join(f"{asked[kind]:g} {kind}" for kind in kinds) or "nothing"
        return f"each asks for {wanted}; hosts: {some_of(hosts, MOST_HOSTS)}"

    def begin(self, actor: ActorHandle, task: TrainTask) -> Any:  # Ray's reference
        """Begin a task; the reference becomes a :class:`TaskResult`."""
        actor.last_heartbeat = actor.moved = time.monotonic()
        actor.began = task.group_epoch
        return actor.handle.run.remote(task)

    def poll(self, seconds: float) -> None:
        """Ask all actors for heartbeats, wait for answers, and note which are ready and which have died."""
        self._forget_deafness()
        self._check_head()
        waiting: dict[Any, ActorHandle] = {}  # Ray's references
        for actor in self.actors:
            if actor.dead:
                continue
            if actor.info is None:
                waiting[actor._starting] = actor
                continue
            if actor._asked is None:
                actor._asked = actor.handle.heartbeat.remote()
            waiting[actor._asked] = actor
        until, unavailable = time.monotonic() + seconds, []
        while waiting and (left := until - time.monotonic()) > 0:
            done, _ = self._ray.wait(list(waiting), num_returns=1, timeout=left)
            for ref in done:
                actor = waiting.pop(ref)
                if not self._receive(actor, ref):
                    unavailable.append(actor)
        self._end_refused(unavailable)
        self._recheck_aside()
        time.sleep(max(0.0, until - time.monotonic()))
        self._listened = time.monotonic()

    def _forget_deafness(self) -> None:
        """Take time in which this process did not listen off the silence of the actors."""
        deaf = time.monotonic() - self._listened
        if deaf > DEAF_SECONDS:
            for actor in self.actors:
                actor.last_heartbeat += deaf
                actor.moved += deaf

    def forgive(self) -> None:
        """Count the silence of all actors anew, after a time in which the network of this host was out."""
        for actor in self.actors:
            actor.last_heartbeat = actor.moved = time.monotonic()

    def _check_head(self) -> None:
        """Raise E305 when the head of the cluster, without which Ray ends everything, has been gone for long."""
        now = time.monotonic()
        if now < self._head_check_at:
            return
        self._head_check_at = now + HEAD_CHECK_SECONDS
        host, _, port = self._head.rpartition(":")
        if ping([(host, int(port))], QUICK_PING_SECONDS) == [Answer.ACCEPTED]:
            self._head_answered = time.monotonic()
        elif now - self._head_answered > HEAD_SECONDS:
            msg = f"the head of the Ray cluster has not answered for {now - self._head_answered:.0f} s"
            fix = "start the cluster again and run the same command with --resume"
            raise ConfigError(msg, code="E305", where=self._head, fix=fix)

    def _receive(self, actor: ActorHandle, ref: Any) -> bool:  # Ray's reference
        """Take an answer, and return false when the connection to a ready actor has failed."""
        try:
            answer = self._ray.get(ref)
        except self._ray.exceptions.ActorUnavailableError as error:
            if actor.info is None:
                actor.dead = reason(error)
            actor._asked = None
            return actor.info is None
        except self._ray.exceptions.RayError as error:
            actor.dead = reason(error)
            return True
        actor.last_heartbeat = time.monotonic()
        if actor.info is None:
            self._admit(actor, answer)
        else:
            actor.receive(answer)
            actor._asked = None
        return True

    def _admit(self, actor: ActorHandle, info: ActorInfo) -> None:
        actor.info = info
        where = f"{info.hostname} ({info.host})"
        actor.refused = self._preflight.check(info.evidence, name=actor.name, host=where, asked=actor.asked_at)
        logger.info("%s on %s computes on %s", actor, where, info.device)
        if actor.refused is not None:
            logger.warning("%s is not used: %s", actor, actor.refused)
            self.end(actor, actor.refused.message)

    def _end_refused(self, actors: Sequence[ActorHandle]) -> None:
        """Count actors as dead whose host is there but refuses connections; others may be cut off for a while."""
        for actor, answer in zip(actors, ping([a.address for a in actors], QUICK_PING_SECONDS), strict=True):
            if answer is Answer.REFUSED:
                actor.dead = "its process is gone"

    def hears_nobody(self) -> bool:
        """Return whether no actor has answered for long and none of their hosts does: the cause may be this host."""
        known = [actor for actor in self.actors if actor.info is not None and not actor.dead]
        if any(actor.silent <= DEAF_SECONDS for actor in known):
            return False
        return all(answer is Answer.SILENT for answer in ping([a.address for a in known], QUICK_PING_SECONDS))

    def host_answers(self, actor: ActorHandle) -> bool:
        """Return whether the host of an actor that is silent answers."""
        return ping([actor.address], QUICK_PING_SECONDS) == [Answer.ACCEPTED]

    def broken_links(self, group: Sequence[ActorHandle]) -> list[tuple[int, int]]:
        """Return the pairs of ranks in a group of living actors that do not reach each other."""
        asked = {
            actor.handle.unreachable.remote([peer.address for peer in group[:rank]]): rank
            for rank, actor in enumerate(group)
            if rank
        }
        pairs = []
        refs = list(asked)
        done, _ = self._ray.wait(refs, num_returns=len(refs), timeout=2 * PING_SECONDS) if refs else ([], [])
        for ref in done:
            try:
                pairs += [(peer, asked[ref]) for peer in self._ray.get(ref)]
            except self._ray.exceptions.RayError as error:
                logger.info("%s could not be asked for its links: %s", group[asked[ref]], reason(error))
        return sorted(pairs)

    def _recheck_aside(self) -> None:
        """Ask actors that were put aside, every few seconds, whether they reach all others now."""
        for actor in self.aside:
            others = self.ready
            if actor._rechecked is not None:
                done, _ = self._ray.wait([actor._rechecked], timeout=0)
                if not done:
                    continue
                try:
                    reached = not self._ray.get(actor._rechecked)
                except self._ray.exceptions.RayError:
                    reached = False
                actor._rechecked, actor._recheck_at = None, time.monotonic() + RECHECK_SECONDS
                if reached:
                    logger.warning("%s reaches the others again", actor)
                    actor.aside = ""
            elif others and time.monotonic() > actor._recheck_at:
                actor._rechecked = actor.handle.unreachable.remote([other.address for other in others])

    def leave(self, actors: Iterable[ActorHandle], group_epoch: int) -> None:
        """Let actors leave a group that has broken; their processes stay."""
        for actor in actors:
            if not actor.dead:
                actor.handle.leave.remote(group_epoch)

    def finished(self, running: Mapping[Any, ActorHandle]) -> list[Any]:  # by Ray's references
        """Return those references of :meth:`begin` whose tasks or actors have ended.

        One whose connection has failed has not: its actor says when it ends, or is given up for its silence.
        """
        dead = [ref for ref, actor in running.items() if actor.dead]
        refs = [ref for ref, actor in running.items() if not actor.dead]
        done, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0) if refs else ([], [])
        return dead + [ref for ref in done if not (self._is_unavailable(ref) and _may_work(running[ref]))]

    def _is_unavailable(self, ref: Any) -> bool:  # Ray's reference
        try:
            self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            return isinstance(error, self._ray.exceptions.ActorUnavailableError)
        return False

    def result(self, actor: ActorHandle, ref: Any) -> TaskResult | None:  # Ray's reference
        """Return the result of a task, or ``None`` when the actor has died."""
        if actor.dead:
            return None
        try:
            found: TaskResult = self._ray.get(ref)
        except self._ray.exceptions.ActorUnavailableError as error:
            heartbeat = actor.heartbeat_of(actor.began)
            if heartbeat is not None and heartbeat.result is not None:
                return heartbeat.result
            now = PhaseState(0, "load", None, 0.0, 0) if actor.heartbeat is None else actor.heartbeat.now
            return TaskResult(outcome="lost", now=now, message=f"the connection to it was lost ({reason(error)})")
        except self._ray.exceptions.RayError as error:
            actor.dead = reason(error)
            return None
        return found

    def end(self, actor: ActorHandle, why: str) -> threading.Thread:
        """End an actor, without waiting for a host that may not answer; the thread ends when Ray has taken note."""
        actor.dead = actor.dead or why
        thread = threading.Thread(target=self._ray.kill, args=[actor.handle], name="musegnn-end", daemon=True)
        thread.start()
        return thread

    def stacks(self, actor: ActorHandle) -> str:
        """Return the stacks of an actor's threads, or why there are none."""
        if actor.silent > STACKS_SECONDS:
            return "it does not answer"
        try:
            text: str = self._ray.get(actor.handle.stacks.remote(), timeout=STACKS_SECONDS)
        except self._ray.exceptions.RayError as error:
            return reason(error)
        return text


def _may_work(actor: ActorHandle) -> bool:
    """Return whether the newest task of an actor may go on although its connection has failed."""
    if actor.silent > DEAF_SECONDS:
        return True
    heartbeat = actor.heartbeat_of(actor.began)
    return heartbeat is not None and heartbeat.result is None


def reason(error: BaseException) -> str:
    """Return in one line why Ray gave up on an actor."""
    text = " ".join(str(error).split())
    detail = text.partition("Worker exit detail: ")[2] or text or type(error).__name__
    return detail.partition(" Some common causes")[0][:300].rstrip(". ")
