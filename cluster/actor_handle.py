"""An actor as the controller knows it: where it is, what it said last, and since when it has not moved."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from musegnn.cluster.links import Address
    from musegnn.cluster.messages import ActorInfo, Heartbeat
    from musegnn.errors import MuseGNNError


@dataclass(eq=False, slots=True)
class ActorHandle:
    """One actor, as the controller knows it.

    Attributes
    ----------
    info
        Location; ``None`` until the actor is ready.
    heartbeat, last_heartbeat
        Newest heartbeat, and when it came (monotonic seconds).
    moved
        When a heartbeat last showed a new phase, CPU time or traffic (monotonic seconds).
    longest_silence
        Longest time after which a heartbeat came nevertheless, in seconds.
    owned
        Indices of the datasets that it has loaded.
    dead
        Reason why it is no longer used; empty while it is.
    refused
        The error where the preflight turned it down.
    began
        Group epoch of its newest task.
    aside
        Reason why it gets no work for now although it is alive; empty while it may.
    """

    name: str
    handle: Any  # Ray publishes no type
    info: ActorInfo | None = None
    heartbeat: Heartbeat | None = None
    last_heartbeat: float = field(default_factory=time.monotonic)
    moved: float = field(default_factory=time.monotonic)
    longest_silence: float = 0.0
    owned: frozenset[int] = frozenset()
    dead: str = ""
    refused: MuseGNNError | None = None
    aside: str = ""
    began: int = 0
    asked_at: float = field(default_factory=time.time)
    _asked: Any = None  # Ray publishes no type
    _starting: Any = None  # as above
    _rechecked: Any = None  # as above
    _recheck_at: float = 0.0

    @property
    def silent(self) -> float:
        """Seconds since the last heartbeat."""
        return time.monotonic() - self.last_heartbeat

    @property
    def spent(self) -> float:
        """Seconds in the present phase, as far as known."""
        return self.silent + (self.heartbeat.spent if self.heartbeat is not None else 0.0)

    @property
    def idle(self) -> float:
        """Seconds until the last heartbeat in which it has computed and received nothing."""
        return self.last_heartbeat - self.moved

    def receive(self, heartbeat: Heartbeat) -> None:
        """Take a heartbeat."""
        self.longest_silence = max(self.longest_silence, self.silent)
        self.last_heartbeat = time.monotonic()
        if self.heartbeat is None or _progress(heartbeat) != _progress(self.heartbeat):
            self.moved = self.last_heartbeat
        self.heartbeat = heartbeat

    @property
    def ready(self) -> bool:
        """Whether it can be given a task."""
        return self.info is not None and not self.dead and not self.aside

    @property
    def address(self) -> Address:
        """Where it can be asked for a sign of life."""
        assert self.info is not None
        return self.info.host, self.info.ping_port

    def heartbeat_of(self, group_epoch: int) -> Heartbeat | None:
        """Return the newest heartbeat if it is of a given process group."""
        found = self.heartbeat
        return found if found is not None and found.group_epoch == group_epoch else None

    def __str__(self) -> str:
        """Name it as messages do."""
        where = f" ({self.info.host}, pid {self.info.pid})" if self.info is not None else ""
        return f"{self.name}{where}"


def _progress(heartbeat: Heartbeat) -> tuple[float, ...]:
    return heartbeat.group_epoch, heartbeat.now.count, heartbeat.thread_seconds, heartbeat.traffic
