"""Options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from musegnn.errors import ConfigError
from musegnn.units import parse_bytes

Device = Literal["auto", "cpu", "cuda"] | None


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

    def overrides(self) -> dict[str, Any]:  # values are whatever YAML gives
        """Return the settings by dotted name."""
        from musegnn.atlas_file import parse_yaml

        overrides: dict[str, Any] = {}
        for item in self.set:
            key, equals, value = item.partition("=")
            if not equals or not key:
                msg = f"expected section.name=value, got {item!r}"
                raise ConfigError(msg, code="E302", where="--set", fix="for example --set training.rounds=20")
            overrides[key] = parse_yaml(value.encode(), where="--set")
        if self.rounds is not None:
            overrides["training.rounds"] = self.rounds
        if self.seed is not None:
            overrides["training.seed"] = self.seed
        return overrides


@Parameter(name="*", negative=())
@dataclass(frozen=True, slots=True)
class BuildOptions:
    """Options of commands that build graphs; none of them changes a result beyond rounding."""

    scheduler: str = "threads"
    "Scheduler of the builds: threads, synchronous, distributed, ray, or the address of a dask scheduler."
    memory: str | None = None
    "Memory of each process, such as 6GB; without it half of what is free."
    device: str = "auto"
    "Where to compute: cpu, cuda, or auto (CUDA where there is a GPU); the last bits differ."

    @property
    def memory_bytes(self) -> int | None:
        """The `memory` in bytes."""
        return None if self.memory is None else parse_bytes(self.memory)
