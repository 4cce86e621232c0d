"""Seconds of each stage of a round, dataset by dataset, in a process that trains alone."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

from musegnn.training.phases import Phases

if TYPE_CHECKING:
    from collections.abc import Callable

    from musegnn.training.engine import Engine
    from musegnn.training.phases import PhaseState

STAGES = ("encode", "reconstruct", "compare", "backward")
"""Stages of a round that take datasets one by one; the others, such as ``step``, are one for all."""
WARM_ROUNDS = 2


class Stopwatch(Phases):
    """Phases that keep the seconds of every stage of every dataset in every round after the first WARM_ROUNDS.

    Parameters
    ----------
    clock
        Seconds so far.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__(on_enter=self._note)
        self._clock = clock
        self._before: PhaseState | None = None
        self._entered = clock()
        self._spent: dict[tuple[str, str | None], list[float]] = {}

    def _note(self, now: PhaseState) -> None:
        was, ended = self._before, self._clock()
        if was is not None and was.round > WARM_ROUNDS:
            self._spent.setdefault((was.phase, was.dataset), []).append(ended - self._entered)
        self._before, self._entered = now, self._clock()

    def median(self, stage: str, dataset: str | None = None) -> float:
        """Return the median over rounds; without a dataset, of the part of a stage that is of none."""
        return statistics.median(self._spent[stage, dataset])


def train_and_time(make: Callable[[Phases], Engine], rounds: int, *, clock: Callable[[], float]) -> Stopwatch:
    """Train rounds after WARM_ROUNDS and give what the stages took.

    Parameters
    ----------
    make
        Makes the engine, given the phases that it shall enter.
    rounds
        Timed rounds.
    clock
        ``time.perf_counter`` or, where others keep the machine busy, ``time.process_time``.
    """
    watch = Stopwatch(clock)
    engine = make(watch)
    for round_ in range(1, WARM_ROUNDS + rounds + 1):
        engine.round(round_)
    watch.enter("load", 0)
    return watch
