"""What a process of a training run is doing, since when, and how long each phase took.

A round goes through the phases in this order. Those that wait for other processes do nothing else, so their seconds
are waiting time.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Callable

Phase = Literal[
    "load", "encode", "reconstruct", "exchange", "compare", "return", "backward", "reduce", "step", "checkpoint"
]
PHASES: tuple[Phase, ...] = get_args(Phase)
WAITS: tuple[Phase, ...] = ("exchange", "return", "reduce")
FILES: tuple[Phase, ...] = ("load", "checkpoint")
"""Phases in which a process reads or writes files, and waits for others that do."""


@dataclass(frozen=True, slots=True)
class PhaseState:
    """The phase of a process at a time.

    Attributes
    ----------
    round
        The round under way; 0 before the first.
    dataset
        The dataset that is computed where the phase goes from dataset to dataset.
    since
        Start of the phase of this dataset, seconds since the epoch.
    count
        Number of phases entered so far: as long as it grows, the process moves.
    """

    round: int
    phase: Phase
    dataset: str | None
    since: float
    count: int


class Phases:
    """Follows a process through the phases of its rounds; ``now`` may be read by other threads.

    `on_enter` is called with each new state before its work begins.
    """

    def __init__(self, on_enter: Callable[[PhaseState], None] | None = None) -> None:
        self._on_enter = on_enter
        self._lock = threading.Lock()
        self._seconds: dict[str, float] = {}
        self._by_dataset: dict[str, float] = {}
        self._began = time.perf_counter()
        self.now = PhaseState(0, "load", None, time.time(), 0)

    def enter(self, phase: Phase, round_: int, dataset: str | None = None) -> None:
        """Begin a phase, which ends the one before it; of datasets computed at a time, the last that began counts."""
        with self._lock:
            self._close()
            self.now = PhaseState(round_, phase, dataset, time.time(), self.now.count + 1)
        if self._on_enter is not None:
            self._on_enter(self.now)

    def seconds(self) -> dict[str, float]:
        """Return the seconds spent in each phase so far; may be called by other threads."""
        seconds, phase, began = dict(self._seconds), self.now.phase, self._began
        seconds[phase] = seconds.get(phase, 0.0) + time.perf_counter() - began
        return {phase: seconds[phase] for phase in PHASES if phase in seconds}

    def dataset_seconds(self) -> dict[str, float]:
        """Return the seconds spent on each dataset so far; may be called by other threads."""
        return dict(self._by_dataset)

    def _close(self) -> None:
        end = time.perf_counter()
        phase, dataset, spent = self.now.phase, self.now.dataset, end - self._began
        self._seconds[phase] = self._seconds.get(phase, 0.0) + spent
        if dataset is not None:
            self._by_dataset[dataset] = self._by_dataset.get(dataset, 0.0) + spent
        self._began = end
