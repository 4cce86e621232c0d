"""Options of training on a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from musegnn.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """Options of training with several processes; none of them changes a result, except for skipping datasets.

    Raises
    ------
    ConfigError
        E302 for numbers of actors that make no sense; E303 for an address without actors.
    """

    actors: int | None = None
    "Number of training processes on Ray, each of which owns datasets; without it training runs in this process."
    address: str | None = None
    "Address of a running Ray cluster, auto or host:port; without it a local one is started."
    spares: int = 0
    "Number of further processes, which stand by to replace one that fails."
    min_actors: int = 1
    "Smallest number of processes with which training goes on while replacements start."
    cpus: float | None = None
    "CPUs per process; without it training.threads."
    on_repeated_failure: Literal["fail", "skip"] = "fail"
    "When three processes in turn fail on one dataset: stop, or go on without it."
    metrics_port: int | None = None
    "Port of the Prometheus metrics of a local Ray cluster."

    def __post_init__(self) -> None:
        """Refuse options that contradict one another."""
        if self.actors is None and self.address is not None:
            msg = "an address needs a number of actors"
            raise ConfigError(msg, code="E303", where="--address", fix="add --actors N")
        if self.actors is not None and not (1 <= self.min_actors <= self.actors and self.spares >= 0):
            msg = f"got {self.actors} actors, at least {self.min_actors}, and {self.spares} spares"
            raise ConfigError(msg, code="E302", where="actors", fix="1 <= min_actors <= actors, and 0 or more spares")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Times that the controller waits, in seconds.

    Attributes
    ----------
    start
        Until enough actors are ready.
    silent
        Without a heartbeat before an actor is given up and killed, where its host does not answer either.
    frozen
        The same where its host answers: it is frozen, starved, or its connections recover. Where actors have come
        back from silence, four times the longest one, and at most `hang`.
    hang
        Without computing anything, in a phase of computing, before an actor is killed although it answers.
    stall
        In one phase of computing before an actor is killed; ten times the median round where that is longer.
    wait
        Without any actor of a group computing or receiving anything before the group is broken up.
    leave
        Without computing or receiving anything after the group has broken and the actor was told to leave, before it is
        killed.
    doubt
        Without a heartbeat of any actor before the controller gives all of them up: it may be the one that is cut off.
    grace
        Until the rest of the actors are ready, where a group has to begin with new ones alone.
    links
        Until actors that were put aside reach the others again, where the run cannot go on without them.
    """

    start: float = 120.0
    silent: float = 7.0
    frozen: float = 12.0
    hang: float = 60.0
    stall: float = 300.0
    wait: float = 90.0
    leave: float = 30.0
    doubt: float = 30.0
    grace: float = 10.0
    links: float = 30.0
