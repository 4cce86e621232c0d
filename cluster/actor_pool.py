"""Actors of a training run: started, watched, and ended.

Ray places actors and reports those that have died. Frozen actors are found here: each is asked for a heartbeat again
and again, and one that does not answer for long is frozen.
"""

from __future__ import annotations

import itertools
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from musegnn.cluster.messages import ActorInfo, Heartbeat, TaskResult, TrainTask
    from musegnn.training.phases import PhaseState

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.25
STACKS_SECONDS = 2.0


@dataclass(eq=False, slots=True)
class ActorHandle:
    """One actor, as the controller knows it.

    Attributes
    ----------
    info
        Location; ``None`` until the actor is ready.
    heartbeat, last_heartbeat
        Newest heartbeat, and when it came (monotonic seconds).
    owned
        Indices of the datasets that it has loaded.
    dead
        Reason why it is no longer used; empty while it is.
    """

    name: str
    handle: Any  # Ray publishes no type
    info: ActorInfo | None = None
    heartbeat: Heartbeat | None = None
    last_heartbeat: float = field(default_factory=time.monotonic)
    owned: frozenset[int] = frozenset()
    dead: str = ""
    _asked: Any = None  # Ray publishes no type
    _starting: Any = None  # as above

    @property
    def silent(self) -> float:
        """Seconds since the last heartbeat."""
        return time.monotonic() - self.last_heartbeat

    @property
    def spent(self) -> float:
        """Seconds in the present phase, as far as known."""
        return self.silent + (self.heartbeat.spent if self.heartbeat is not None else 0.0)

    @property
    def ready(self) -> bool:
        """Whether it can be given a task."""
        return self.info is not None and not self.dead

    def heartbeat_of(self, group_epoch: int) -> Heartbeat | None:
        """Return the newest heartbeat if it is of a given process group."""
        found = self.heartbeat
        return found if found is not None and found.group_epoch == group_epoch else None

    def __str__(self) -> str:
        """Name it as messages do."""
        where = f" ({self.info.host}, pid {self.info.pid})" if self.info is not None else ""
        return f"{self.name}{where}"


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
    environment
        Environment variables of the actors.
    """

    def __init__(
        self,
        ray: Any,  # an untyped module
        folder: str,
        *,
        cpus: float = 1.0,
        gpus: float = 0.0,
        device: str = "auto",
        memory: int | None = None,
        environment: Mapping[str, str] | None = None,
        on_phase: Callable[[TrainTask, PhaseState], None] | None = None,
    ) -> None:
        self._ray, self._arguments = ray, (folder, device, memory, on_phase)
        self._options = {
            "num_cpus": cpus,
            "num_gpus": gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
            "runtime_env": {"env_vars": dict(environment or {})},
        }
        self._count = itertools.count()
        self._agents: dict[str, Any] = {}  # Ray's handles
        self.actors: list[ActorHandle] = []

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """End all actors."""
        for actor in self.actors:
            if not actor.dead:
                actor.dead = "the run is over"
                self._ray.kill(actor.handle)
        for agent in self._agents.values():
            self._ray.kill(agent)

    def start_actors(self, n: int) -> None:
        """Start actors; they are ready later."""
        from musegnn.cluster.actor import TrainerActor

        remote = self._ray.remote(concurrency_groups={"control": 2})(TrainerActor)
        for _ in range(n):
            handle = remote.options(**self._options).remote(*self._arguments)
            self.actors.append(ActorHandle(f"actor {next(self._count)}", handle, _starting=handle.info.remote()))

    @property
    def ready(self) -> list[ActorHandle]:
        """Actors that can be given a task, in the order they were started."""
        return [actor for actor in self.actors if actor.ready]

    @property
    def starting(self) -> list[ActorHandle]:
        """Actors that are not ready yet."""
        return [actor for actor in self.actors if actor.info is None and not actor.dead]

    def begin(self, actor: ActorHandle, task: TrainTask) -> Any:  # Ray's reference
        """Begin a task; the reference becomes a :class:`TaskResult`."""
        actor.last_heartbeat = time.monotonic()
        return actor.handle.run.remote(task)

    def poll(self, seconds: float) -> None:
        """Ask all actors for heartbeats, wait for answers, and note which are ready and which have died."""
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
        until = time.monotonic() + seconds
        while waiting and (left := until - time.monotonic()) > 0:
            done, _ = self._ray.wait(list(waiting), num_returns=1, timeout=left)
            for ref in done:
                self._receive(waiting.pop(ref), ref)
        time.sleep(max(0.0, until - time.monotonic()))

    def _receive(self, actor: ActorHandle, ref: Any) -> None:  # Ray's reference
        try:
            answer = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            actor.dead = reason(error)
            return
        actor.last_heartbeat = time.monotonic()
        if actor.info is None:
            actor.info = answer
        else:
            actor.heartbeat, actor._asked = answer, None

    def finished(self, running: Iterable[Any]) -> list[Any]:  # Ray's references
        """Return those references of :meth:`begin` whose tasks or actors have ended."""
        refs = list(running)
        done, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0)
        return list(done)

    def result(self, actor: ActorHandle, ref: Any) -> TaskResult | None:  # Ray's reference
        """Return the result of a task, or ``None`` when the actor has died."""
        try:
            found: TaskResult = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            actor.dead = reason(error)
            return None
        return found

    def end(self, actor: ActorHandle, why: str) -> None:
        """End an actor at once, even when it no longer answers."""
        actor.dead = actor.dead or why
        if actor.info is not None:
            try:
                agent = self._agent(actor.info.node)
                self._ray.get(agent.kill.remote(actor.info.pid, actor.info.started), timeout=5)
            except self._ray.exceptions.RayError as error:
                logger.warning("%s could not be ended by its node: %s", actor, reason(error))
        self._ray.kill(actor.handle)

    def stacks(self, actor: ActorHandle) -> str:
        """Return the stacks of an actor's threads, or why there are none."""
        if actor.silent > STACKS_SECONDS:
            return "it does not answer"
        try:
            text: str = self._ray.get(actor.handle.stacks.remote(), timeout=STACKS_SECONDS)
        except self._ray.exceptions.RayError as error:
            return reason(error)
        return text

    def _agent(self, node: str) -> Any:  # Ray's handle
        if node not in self._agents:
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            from musegnn.cluster.actor import NodeAgent

            strategy = NodeAffinitySchedulingStrategy(node, soft=False)
            options = {"num_cpus": 0, "max_restarts": 0, "scheduling_strategy": strategy}
            self._agents[node] = self._ray.remote(NodeAgent).options(**options).remote()
        return self._agents[node]

    def prepare_agents(self) -> None:
        """Start the agents of all nodes of ready actors, so that they are there when an actor freezes."""
        for actor in self.ready:
            assert actor.info is not None
            self._agent(actor.info.node)


def reason(error: BaseException) -> str:
    """Return in one line why Ray gave up on an actor."""
    text = " ".join(str(error).split())
    detail = text.partition("Worker exit detail: ")[2] or text or type(error).__name__
    return detail.partition(" Some common causes")[0][:300].rstrip(". ")
