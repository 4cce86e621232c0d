"""How long jobs tell where they are.

A job calls ``progress(task, done, total, note)``: `task` names the bar (``"build lung_hlca"``, ``"train"``), `done` of
`total` steps are finished, `note` is a short text such as the current losses. Calls may come from several threads.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import TaskID

logger = logging.getLogger("musegnn")


class Progress(Protocol):
    """Called by a job after each finished step."""

    def __call__(self, task: str, done: int, total: int, note: str = "") -> None:
        """Report that `done` of `total` steps of `task` are finished."""


class TerminalProgress:
    """Show progress: bars on a terminal, at most one plain line per task and ten seconds elsewhere.

    Use as a context manager.

    Parameters
    ----------
    quiet
        Show nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._lock = threading.Lock()
        self._tasks: dict[str, TaskID] = {}
        self._last: dict[str, float] = {}
        self._bars = None
        if not quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bars

            self._bars = Bars(
                TextColumn("{task.description:<28}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
            )

    def __enter__(self) -> Self:
        """Start the display."""
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Stop the display."""
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, task: str, done: int, total: int, note: str = "") -> None:
        """Report that `done` of `total` steps of `task` are finished."""
        if self._quiet:
            return
        with self._lock:
            if self._bars is None:
                self._line(task, done, total, note)
                return
            if task not in self._tasks:
                self._tasks[task] = self._bars.add_task(task, total=total, note=note)
            self._bars.update(self._tasks[task], completed=done, total=total, note=note)

    def _line(self, task: str, done: int, total: int, note: str) -> None:
        now = time.monotonic()
        if done < total and now - self._last.get(task, -1e9) < 10.0:
            return
        self._last[task] = now
        print(f"{task}: {done}/{total} {note}".rstrip(), file=sys.stderr, flush=True)
