"""What the controller of a training run and its actors tell one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from musegnn.training.phases import Phase, PhaseState

How = Literal["exit", "kill", "stop", "exception"]
Kind = Literal["done", "paused", "lost", "failed", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A failure to play, for tests of the recovery.

    Attributes
    ----------
    rank
        Who fails.
    phase, round
        When: as this phase of this round begins; with ``round=None`` in any round.
    how
        ``exit``: the process ends; ``kill``: SIGKILL; ``stop``: SIGSTOP, the process freezes; ``exception``: the work
        raises.
    """

    rank: int
    phase: Phase
    round: int | None
    how: How


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainTask:
    """What a group of actors shall do.

    Attributes
    ----------
    generation
        Number of the group; every later one replaces it.
    rank, size
        Of this actor, and of all.
    owner
        Rank that owns each dataset of the atlas.
    left_out
        Datasets that take no part.
    host, port
        Where the key-value store is in which the members of the group find one another.
    plan
        Recorded in checkpoints.
    faults
        Failures to play.
    """

    generation: int
    rank: int
    size: int
    owner: tuple[int, ...]
    left_out: tuple[int, ...]
    host: str
    port: int
    plan: dict[str, Any]  # JSON
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorInfo:
    """Where an actor lives.

    Attributes
    ----------
    pid, started
        Process and the time it started, in clock ticks since boot, which tells it from a later one of the same number.
    node, host
        Ray's id and the address of its node.
    device
        Where it computes.
    """

    pid: int
    started: int
    node: str
    host: str
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """What an actor is doing now.

    Attributes
    ----------
    generation
        The group it works in; 0 before the first.
    now
        Round, phase, dataset, and since when.
    spent
        Seconds in this phase so far, by the actor's own clock.
    rounds
        Rounds trained.
    loss
        Mean loss of its datasets in the last round; NaN before one.
    seconds
        Spent in each phase so far.
    dataset_seconds
        Per round in this group, by dataset; empty before the first round has ended.
    sent_bytes, peak_bytes
        Sent to other actors so far; largest resident memory.
    """

    generation: int
    now: PhaseState
    spent: float
    rounds: int
    loss: float
    seconds: dict[str, float]
    dataset_seconds: dict[str, float]
    sent_bytes: int
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """How the work of an actor in a group ended.

    Attributes
    ----------
    kind
        ``done``: all rounds are trained; ``paused``: stopped at a checkpoint as asked; ``lost``: another actor was
        lost; ``failed``: something went wrong here that may not come again; ``refused``: it would come again.
    generation, rank
        The group, and who.
    now
        What was being done.
    rounds
        Rounds trained.
    code, message, fix
        Of the error, where there is one.
    datasets
        Those whose numbers are not finite.
    trace
        Its traceback.
    """

    kind: Kind
    generation: int
    rank: int
    now: PhaseState
    rounds: int
    code: str = ""
    message: str = ""
    fix: str = ""
    datasets: tuple[str, ...] = ()
    trace: str = ""
