"""Options that several commands share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from musegnn.errors import ConfigError

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def parse_bytes(text: str) -> int:
    """Read a size such as 6GB or 512MiB.

    Raises
    ------
    ConfigError
        E302.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", text.lower())
    if match is None or match[2] not in UNITS:
        msg = f"expected a size such as 6GB or 512MiB, got {text!r}"
        raise ConfigError(msg, code="E302", where="--memory", fix="give a number and a unit")
    return int(float(match[1]) * UNITS[match[2]])


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
    """Options of commands that build graphs; none of them changes a result."""

    scheduler: str = "threads"
    "Scheduler of the builds: threads, synchronous, distributed, ray, or the address of a dask scheduler."
    memory: str | None = None
    "Memory of each process, such as 6GB; without it half of what is free."

    @property
    def memory_bytes(self) -> int | None:
        """The `memory` in bytes."""
        return None if self.memory is None else parse_bytes(self.memory)
