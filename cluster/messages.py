"""Data that controller, actors and monitor of a training run exchange."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from musegnn.cluster.preflight import Evidence
    from musegnn.config import AtlasConfig
    from musegnn.errors import MuseGNNError
    from musegnn.training.phases import PhaseState

Outcome = Literal["done", "paused", "lost", "failed", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainTask:
    """Work of one actor in a group.

    Attributes
    ----------
    group_epoch
        Number of the group; every later one replaces it.
    rank, size, owner
        Rank of the actor, number of actors in the group, and rank that owns each dataset of the atlas.
    left_out
        Indices of datasets that take no part.
    host, port
        Address of the key-value store in which the actors find one another.
    placement
        Record of the placement for checkpoints.
    config, store
        Configuration, and path of the store, as the controller reads them: no actor reads them from its own view of
        the run folder.
    checkpoint
        Round and sha256 of the newest checkpoint that the controller sees; ``None``: it sees none.
    """

    group_epoch: int
    rank: int
    size: int
    owner: tuple[int, ...]
    left_out: tuple[int, ...]
    host: str
    port: int
    placement: dict[str, Any]  # JSON
    config: AtlasConfig
    store: str
    checkpoint: tuple[int, str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorInfo:
    """Location of an actor.

    Attributes
    ----------
    pid
        Process id.
    host, hostname
        Address and name of its host.
    ping_port
        Port at which it can be asked for a sign of life, see :mod:`musegnn.cluster.links`.
    device
        ``cpu``, or the name and memory of its GPU.
    evidence
        What it found before work, see :mod:`musegnn.cluster.preflight`.
    """

    pid: int
    host: str
    hostname: str
    ping_port: int
    device: str
    evidence: Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """Progress of an actor.

    Attributes
    ----------
    group_epoch, now
        Generation of its group, 0 before the first; present round, phase and dataset.
    spent, seconds
        Seconds in this phase so far, by the actor's own clock, and in each phase.
    rounds, loss
        Number of rounds trained; mean loss of its datasets in the last one, NaN before the first.
    dataset_seconds
        Seconds per round in this group, by dataset; empty before the first round has ended.
    sent_bytes, peak_bytes, device_bytes
        Bytes sent to other actors so far; largest resident memory; largest memory on the GPU, 0 without one.
    thread_seconds, traffic
        CPU seconds of the thread that trains; bytes that have gone over the sockets of its group, in both directions.
        Where neither grows, nothing is computed and nothing arrives.
    result
        End of the work in this group; ``None``: it goes on.
    """

    group_epoch: int
    now: PhaseState
    spent: float
    rounds: int
    loss: float
    seconds: dict[str, float]
    dataset_seconds: dict[str, float]
    sent_bytes: int
    peak_bytes: int
    device_bytes: int = 0
    thread_seconds: float = 0.0
    traffic: int = 0
    result: TaskResult | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """End of an actor's work in a group.

    Attributes
    ----------
    outcome
        ``done``: all rounds are trained; ``paused``: stopped at a checkpoint on request; ``lost``: another actor was
        lost; ``failed``: an error that may not come again; ``refused``: an error that would come again.
    now
        Last round, phase and dataset.
    error, message, trace
        The error if it is one of this package's; the error in one line; its traceback.
    datasets
        Names of datasets with values that are not finite.
    lost_device
        Whether the GPU no longer answers this process, which cannot work any more.
    """

    outcome: Outcome
    now: PhaseState
    error: MuseGNNError | None = None
    message: str = ""
    datasets: tuple[str, ...] = ()
    trace: str = ""
    lost_device: bool = False


class FailureKind(StrEnum):
    """Kinds of failures, root causes before their consequences."""

    REFUSED = "refused"
    FAILED = "failed"
    DIED = "died"
    LINK = "link"
    PEER_LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Failure that ended a process group.

    Attributes
    ----------
    group_epoch, rank, actor
        Group, and rank and name of the actor in it.
    kind
        ``refused``: an error that would come again; ``failed``: another error; ``died``: the process ended or was
        killed because it did not respond; ``link``: the actor and another one, both alive, do not reach each other;
        ``lost``: the actor lost another one.
    message, trace
        Error or reason in one line, and its traceback.
    round, phase, dataset
        Last known work of the actor.
    """

    group_epoch: int
    rank: int
    actor: str
    kind: FailureKind
    message: str
    round: int
    phase: str
    dataset: str | None
    trace: str = ""

    @property
    def cause(self) -> str:
        """Kind and message on one line."""
        return f"{self.kind}: {self.message}"

    def __str__(self) -> str:
        """Describe it on one line, as the log does."""
        dataset = f", dataset {self.dataset}" if self.dataset else ""
        return f"{self.actor}, rank {self.rank}: {self.cause} (round {self.round}, phase {self.phase}{dataset})"
