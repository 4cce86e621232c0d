"""Options that several commands share."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from musegnn.errors import ConfigError
from musegnn.units import parse_bytes


@Parameter(name="*", negative=())
@dataclass(frozen=True, slots=True)
class Common:
    """Options of every command."""

    json: bool = False
    "Print the result as one JSON object."
    quiet: bool = False
    "Show no progress."
    debug: bool = False
    "Show the full trace of an error."


@Parameter(name="*", negative=())
@dataclass(frozen=True, slots=True)
class Settings:
    """Options that replace settings of the atlas file."""

    rounds: int | None = None
    "Training rounds (training.rounds)."
    seed: int | None = None
    "Seed of training (training.seed)."
    set: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    "Any setting, as section.name=value; may be repeated."


@Parameter(name="*", negative=())
@dataclass(frozen=True, slots=True)
class BuildOptions:
    """Options of commands that build graphs; none of them changes a result beyond rounding."""

    scheduler: str = "threads"
    "Where graphs are built: threads, synchronous, distributed, ray, or the address of a dask scheduler."
    memory: str | None = None
    "What each process may use, such as 6GB; without it half of what is free."
    device: str = "auto"
    "Where pairs of genes are summed: cpu, cuda, or auto (CUDA where this machine has it); the last bits differ."

    @property
    def memory_bytes(self) -> int | None:
        """Return the bytes of `memory`."""
        return None if self.memory is None else parse_bytes(self.memory)


@Parameter(name="*", negative=())
@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """Options of training with several processes; none of them changes a result, but for skipping datasets."""

    actors: int | None = None
    "Train with so many processes on Ray, each of which owns datasets; without it in this process alone."
    address: str | None = None
    "A Ray cluster that runs, auto or host:port; without it one on this machine."
    spares: int = 0
    "Processes more, which stand by to replace one that fails."
    min_actors: int = 1
    "Go on with as few as this while replacements start."
    gpus: float | None = None
    "GPUs per process; without it one each where the cluster has so many, else none."
    cpus: float | None = None
    "CPUs per process; without it as many as training.threads."
    on_repeated_failure: Literal["fail", "skip"] = "fail"
    "When three processes in turn fail on one dataset: stop, or go on without it."
    metrics_port: int | None = None
    "Port at which a Ray cluster of our own offers its metrics to Prometheus."

    def options(self) -> dict[str, Any] | None:
        """Return the options of training on a cluster, or ``None`` when nobody asked for it."""
        if self.actors is None:
            if self.address is not None:
                msg = "an address needs a number of actors"
                raise ConfigError(msg, code="E303", where="--address", fix="add --actors N")
            return None
        return asdict(self)
