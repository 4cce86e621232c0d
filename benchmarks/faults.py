"""Failures of actors at given places of a run, for tests and benchmarks of the recovery.

Actors call :class:`Faults` as each phase begins (``on_phase`` of ``train_on_cluster``).
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from musegnn.cluster.messages import TrainTask
    from musegnn.training.phases import Phase, PhaseState


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Failure of one actor.

    Attributes
    ----------
    rank
        Rank of the actor.
    phase, round
        Phase and round at whose beginning it fails; ``round=None``: any round.
    how
        ``exit``: the process ends; ``kill``: SIGKILL; ``stop``: SIGSTOP, the process freezes; ``exception``: an error.
    """

    rank: int
    phase: Phase
    round: int | None
    how: Literal["exit", "kill", "stop", "exception"]


class Faults:
    """Failures of successive group epochs.

    Parameters
    ----------
    entries
        Failures: those of the first entry happen in the first process group that has such ranks, those of the second in
        the next one after that, and so on.
    folder
        Folder in which actors note the entries that happened.
    """

    def __init__(self, entries: Sequence[Sequence[Fault]], folder: Path) -> None:
        import ray

        self._entries, self._folder = [tuple(entry) for entry in entries], folder
        folder.mkdir(parents=True)
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors need not find this module

    def __call__(self, task: TrainTask, now: PhaseState) -> None:
        """Fail where an entry of this process group says so."""
        notes = [path.name.split("-") for path in self._folder.iterdir()]
        done = {entry for entry, group_epoch in notes if int(group_epoch) < task.group_epoch}
        due = self._entries[len(done)] if len(done) < len(self._entries) else ()
        if any(fault.rank >= task.size for fault in due):
            return
        for fault in due:
            if (fault.rank, fault.phase) == (task.rank, now.phase) and fault.round in {None, now.round}:
                (self._folder / f"{len(done)}-{task.group_epoch}").touch()
                _fail(fault, now)


def _fail(fault: Fault, now: PhaseState) -> None:
    if fault.how == "exit":
        os._exit(13)
    if fault.how == "exception":
        msg = f"an injected failure in {now.phase} of round {now.round}"
        raise ArithmeticError(msg)
    os.kill(os.getpid(), signal.SIGKILL if fault.how == "kill" else signal.SIGSTOP)
