"""The actors of a training run: started, last_heartbeat, and ended.

Ray places actors and tells when one has died. Whether one still moves is found out here: each is asked for its pulse
again and again, and who does not answer for long is frozen.
"""

from __future__ import annotations

import itertools
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from musegnn.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType

    from musegnn.cluster.messages import ActorInfo, Heartbeat, TaskResult, TrainTask

logger = logging.getLogger(__name__)

BEAT_SECONDS = 0.25
STACKS_SECONDS = 2.0


@dataclass(eq=False, slots=True)
class ActorHandle:
    """One actor.

    Attributes
    ----------
    name
        Its name in Ray.
    handle
        Ray's handle of it.
    facts
        Where it lives; ``None`` until it is ready.
    pulse, last_heartbeat
        What it did when it was last last_heartbeat, and when that was (monotonic seconds).
    owned
        Datasets that it has in memory.
    dead
        Why it is no longer used; empty while it is.
    """

    name: str
    handle: Any  # Ray publishes no type
    facts: ActorInfo | None = None
    pulse: Heartbeat | None = None
    last_heartbeat: float = field(default_factory=time.monotonic)
    owned: frozenset[int] = frozenset()
    dead: str = ""
    _asked: Any = None  # Ray publishes no type
    _starting: Any = None  # as above

    @property
    def silent(self) -> float:
        """Seconds since it was last last_heartbeat."""
        return time.monotonic() - self.last_heartbeat

    @property
    def spent(self) -> float:
        """Seconds that it has been in its phase, as far as known."""
        return self.silent + (self.pulse.spent if self.pulse is not None else 0.0)

    @property
    def ready(self) -> bool:
        """Whether it can be given work."""
        return self.facts is not None and not self.dead

    def __str__(self) -> str:
        """Name it as messages do."""
        where = f" ({self.facts.host}, pid {self.facts.pid})" if self.facts is not None else ""
        return f"actor {self.name.rpartition(':')[2]}{where}"


class ActorPool:
    """The actors of a run; ends them all when its context is left.

    Parameters
    ----------
    ray
        The module, connected.
    folder
        The run folder.
    cpus, gpus
        That Ray sets aside for each actor.
    device
        ``auto``, or where every actor computes.
    memory
        Bytes that each actor may take on a CPU; ``None``: not checked.
    environment
        Variables set in the actors.
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
    ) -> None:
        self._ray, self._arguments = ray, (folder, device, memory)
        self._options = {
            "num_cpus": cpus,
            "num_gpus": gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
            "runtime_env": {"env_vars": dict(environment or {})},
        }
        self._count = itertools.count()
        self._agents: dict[str, Any] = {}  # Ray's handles
        self.members: list[ActorHandle] = []

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """End all actors."""
        for member in self.members:
            if not member.dead:
                member.dead = "the run is over"
                self._ray.kill(member.handle)
        for agent in self._agents.values():
            self._ray.kill(agent)

    def start_actors(self, n: int) -> None:
        """Start actors; they are ready later."""
        from musegnn.cluster.actor import TrainerActor

        remote = self._ray.remote(concurrency_groups={"control": 2})(TrainerActor)
        for _ in range(n):
            number = next(self._count)
            handle = remote.options(**self._options).remote(*self._arguments)
            member = ActorHandle(f"musegnn:trainer:{number}", handle)
            member._starting = handle.facts.remote()
            self.members.append(member)

    @property
    def ready(self) -> list[ActorHandle]:
        """Those that can be given work, in the order they were started."""
        return [member for member in self.members if member.ready]

    @property
    def starting(self) -> list[ActorHandle]:
        """Those that are on their way."""
        return [member for member in self.members if member.facts is None and not member.dead]

    def begin(self, member: ActorHandle, order: TrainTask) -> Any:  # Ray's reference
        """Set an actor to work in a group; the reference becomes an :class:`TaskResult`."""
        member.last_heartbeat = time.monotonic()
        return member.handle.run.remote(order)

    def listen(self, seconds: float) -> None:
        """Ask all for their pulses, wait for answers, and note who is ready and who has died."""
        refs: dict[Any, ActorHandle] = {}  # Ray's references
        for member in self.members:
            if member.dead:
                continue
            if member.facts is None:
                refs[member._starting] = member
                continue
            if member._asked is None:
                member._asked = member.handle.pulse.remote()
            refs[member._asked] = member
        if not refs:
            time.sleep(seconds)
            return
        until = time.monotonic() + seconds
        waiting = list(refs)
        while waiting and (left := until - time.monotonic()) > 0:
            done, waiting = self._ray.wait(waiting, num_returns=1, timeout=left)
            for ref in done:
                self._hear(refs[ref], ref)
        if not waiting and (left := until - time.monotonic()) > 0:
            time.sleep(left)

    def _hear(self, member: ActorHandle, ref: Any) -> None:  # Ray's reference
        try:
            answer = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            member.dead = reason(error)
            return
        member.last_heartbeat = time.monotonic()
        if member.facts is None:
            member.facts = answer
        else:
            member.pulse, member._asked = answer, None

    def finished(self, running: Iterable[Any]) -> list[Any]:  # Ray's references
        """Return those references of :meth:`begin` whose actors have ended their work, or themselves."""
        refs = list(running)
        done, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0)
        return list(done)

    def outcome(self, member: ActorHandle, ref: Any) -> TaskResult | None:  # Ray's reference
        """Return how the work of an actor ended, or ``None`` when the actor has died."""
        try:
            found: TaskResult = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            member.dead = reason(error)
            return None
        return found

    def end(self, member: ActorHandle, why: str) -> None:
        """End an actor at once, even when it no longer answers."""
        member.dead = member.dead or why
        if member.facts is not None:
            try:
                agent = self._agent(member.facts.node)
                self._ray.get(agent.kill.remote(member.facts.pid, member.facts.started), timeout=5)
            except (self._ray.exceptions.RayError, RunError) as error:
                logger.warning("%s could not be ended by its node: %s", member, reason(error))
        self._ray.kill(member.handle)

    def pause(self, members: Sequence[ActorHandle]) -> None:
        """Ask a group to stop at its next checkpoint."""
        for member in members:
            member.handle.pause.remote()

    def stacks(self, member: ActorHandle) -> str:
        """Return what every thread of an actor is doing, or why that cannot be told."""
        if member.silent > STACKS_SECONDS:
            return "it does not answer"
        try:
            text: str = self._ray.get(member.handle.stacks.remote(), timeout=STACKS_SECONDS)
        except self._ray.exceptions.RayError as error:
            return reason(error)
        return text

    def _agent(self, node: str) -> Any:  # Ray's handle
        if node not in self._agents:
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            from musegnn.cluster.actor import NodeAgent

            place = NodeAffinitySchedulingStrategy(node, soft=False)
            options = {"num_cpus": 0, "max_restarts": 0, "scheduling_strategy": place}
            self._agents[node] = self._ray.remote(NodeAgent).options(**options).remote()
        return self._agents[node]

    def prepare_agents(self) -> None:
        """Start the agents of all nodes that actors live on, so that they are there when one freezes."""
        for member in self.ready:
            assert member.facts is not None
            self._agent(member.facts.node)


def reason(error: BaseException) -> str:
    """Say in one line why Ray gave up on an actor."""
    text = " ".join(str(error).split())
    detail = text.partition("Worker exit detail: ")[2] or text or type(error).__name__
    return detail.partition(" Some common causes")[0][:300].rstrip(". ")
