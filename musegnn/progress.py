"""Progress of jobs, and warnings in few lines."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import TracebackType

    from rich.progress import TaskID

logger = logging.getLogger("musegnn")

LISTED = 3
BAR_WIDTH, BAR_SECONDS = 24, 0.2


class Progress(Protocol):
    """Function that a job calls after each finished step, maybe from several threads.

    `task` names the bar (``"build lung_hlca"``, ``"train"``); `note` is a short text such as the current losses.
    """

    def __call__(self, task: str, done: int, total: int, note: str = "") -> None:
        """Report that `done` of `total` steps of `task` are finished."""


@contextmanager
def reporting(progress: Progress | bool | None) -> Iterator[Progress | None]:  # noqa: FBT001  as users give it
    """Return the function that reports progress: the one given, bars or lines for true, none for false."""
    if callable(progress):
        yield progress
    elif progress:
        with TerminalProgress() as bars:
            yield bars
    else:
        yield None


def _in_notebook() -> bool:
    """Return whether a notebook shows what this process prints; without importing IPython."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})


class _NotebookBars:
    """One output of plain text that is replaced as steps finish, a line per task; it needs no widgets."""

    def __init__(self) -> None:
        self._lines: dict[str, str] = {}
        self._last = 0.0
        self._handle: Any = None  # of the output; IPython has types in some versions only

    def update(self, task: str, done: int, total: int, note: str, now: float) -> None:
        full = BAR_WIDTH if done >= total else BAR_WIDTH * done // total
        bar = "\u2588" * full + "\u2591" * (BAR_WIDTH - full)
        self._lines[task] = f"{task:<28} {bar} {done}/{total} {note}".rstrip()
        if done >= total or now - self._last >= BAR_SECONDS:
            self._last = now
            self.show()

    def show(self) -> None:
        text = {"text/plain": "\n".join(self._lines.values())}
        if self._handle is None:
            self._handle = import_module("IPython.display").display(text, raw=True, display_id=True)
        else:
            self._handle.update(text, raw=True)


class TerminalProgress:
    """Progress, rate and time left: bars on a terminal and in a notebook, elsewhere at most a line per ten seconds."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._lock = threading.Lock()
        self._tasks: dict[str, TaskID] = {}
        self._last: dict[str, float] = {}
        self._first: dict[str, tuple[float, int]] = {}
        self._bars = None
        self._notebook = _NotebookBars() if not quiet and _in_notebook() else None
        if not quiet and self._notebook is None and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bars

            self._bars = Bars(
                TextColumn("{task.description:<28}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[pace]}"),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
            )

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bars is not None:
            self._bars.stop()
        if self._notebook is not None and self._first:
            self._notebook.show()

    def __call__(self, task: str, done: int, total: int, note: str = "") -> None:
        """Report that `done` of `total` steps of `task` are finished."""
        if self._quiet:
            return
        with self._lock:
            now = time.monotonic()
            first, before = self._first.setdefault(task, (now, done))
            pace = describe_pace(done - before, total - done, now - first)
            if self._bars is None:
                show = self._line if self._notebook is None else self._notebook.update
                show(task, done, total, ", ".join(part for part in (note, pace) if part), now)
                return
            if task not in self._tasks:
                self._tasks[task] = self._bars.add_task(task, total=total, note=note, pace=pace)
            self._bars.update(self._tasks[task], completed=done, total=total, note=note, pace=pace)

    def _line(self, task: str, done: int, total: int, note: str, now: float) -> None:
        if done < total and now - self._last.get(task, -1e9) < 10.0:
            return
        self._last[task] = now
        print(f"{task}: {done}/{total} {note}".rstrip(), file=sys.stderr, flush=True)


def describe_pace(done: int, left: int, seconds: float) -> str:
    """Return the rate of `done` steps in `seconds`, and the time that the steps left take at that rate, as text.

    Examples
    --------
    >>> describe_pace(3000, 9000, 20.0)
    '150/s, 1:00 left'
    >>> describe_pace(2, 1, 8.0)
    '0.25/s, 0:04 left'
    >>> describe_pace(0, 5, 3.0)
    ''
    """
    if done <= 0 or seconds <= 0.0:
        return ""
    rate = done / seconds
    shown = f"{rate:,.0f}/s" if rate >= 10.0 else f"{rate:.2g}/s"
    if left <= 0:
        return shown
    minutes, rest = divmod(round(left / rate), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{shown}, " + (f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}") + " left"


def count_warnings(codes: Iterable[str], *, details: str) -> str:
    """Return one line of bounded length: how often each code occurs, and the command that lists the warnings.

    Examples
    --------
    >>> count_warnings(["W503", "W501", "W503"], details="musegnn status RUN")
    'warnings: W501, W503 x2 (musegnn status RUN)'
    >>> count_warnings([], details="musegnn status RUN")
    ''
    """
    counts = sorted(Counter(codes).items())
    if not counts:
        return ""
    return f"warnings: {', '.join(f'{code} x{n}' if n > 1 else code for code, n in counts)} ({details})"


def shorten_warnings(lines: Sequence[str], *, limit: int = LISTED) -> list[str]:
    """Return the first lines ``CODE: ...`` of each code, and after them how many more there are of it.

    Examples
    --------
    >>> shorten_warnings(["W501: a: x", "W503: b: y", "W503: c: y", "W503: d: y"], limit=1)
    ['W501: a: x', 'W503: b: y', 'W503: and 2 more']
    """
    by_code: dict[str, list[str]] = {}
    for line in lines:
        by_code.setdefault(line.partition(":")[0], []).append(line)
    shown = []
    for code, found in by_code.items():
        shown += found[:limit]
        if len(found) > limit:
            shown.append(f"{code}: and {len(found) - limit} more")
    return shown
