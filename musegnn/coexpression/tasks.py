"""Pieces of a build that are computed once, kept in files and taken up again after a failure.

A stage of a build is a list of tasks. Each is a pure function of its arguments and of files of earlier stages, and
leaves one file of arrays; results are merged from the files in the order of the list. Where and in which order tasks
run therefore cannot change a bit, and a stage that was interrupted goes on with the tasks whose file is missing.
"""

from __future__ import annotations

import struct
import zipfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from musegnn.data_store.atomic_files import atomic_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

Arrays = dict[str, "NDArray[Any]"]
# What zipfile raises for a damaged archive, depending on where the damage is.
DAMAGE = (OSError, zipfile.BadZipFile, RuntimeError, ValueError, OverflowError, EOFError, struct.error)
ENTRY = b"PK\x01\x02"  # how an entry of a zip directory starts


@dataclass(frozen=True, slots=True)
class Task:
    """One piece of work.

    Attributes
    ----------
    path
        The file of its result, on storage that all workers share.
    function
        Gives the result; importable by name, so that it can travel to other processes.
    arguments
        What it is called with; picklable.
    """

    path: Path
    function: Callable[..., Arrays]
    arguments: tuple[Any, ...]  # whatever the function takes


class Runner(Protocol):
    """Runs the tasks of one stage, in any order and on any machine, until all their files exist."""

    def __call__(self, tasks: Sequence[Task], done: Callable[[Task], None]) -> None:
        """Run tasks; `done` is called after each."""


def run_here(tasks: Sequence[Task], done: Callable[[Task], None]) -> None:
    """Run tasks one after the other in this thread: the simplest :class:`Runner`."""
    for task in tasks:
        complete(task)
        done(task)


def run_stage(tasks: Sequence[Task], runner: Runner, done: Callable[[Task], None]) -> None:
    """Make sure that the files of all tasks exist and are whole.

    Parameters
    ----------
    tasks
        The stage.
    runner
        Runs those that have no result yet.
    done
        Called after each task, also after those found done.
    """
    todo = []
    for task in tasks:
        if is_whole(task.path):
            done(task)
        else:
            task.path.unlink(missing_ok=True)
            todo.append(task)
    if todo:
        todo[0].path.parent.mkdir(parents=True, exist_ok=True)
        runner(todo, done)


def complete(task: Task) -> None:
    """Compute the result of a task and put it in its place in one step."""
    save(task.path, task.function(*task.arguments))


def save(path: Path, arrays: Arrays) -> None:
    """Write arrays so that the file is whole whenever it has its name."""
    with atomic_file(path, parents=True) as aside, aside.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy types one keyword of its own among them


def load(path: Path) -> Arrays:
    """Read the arrays of a task; every member is checked against its CRC-32 on the way.

    Raises
    ------
    OSError, ValueError, zipfile.BadZipFile
        When the file is missing or damaged.
    """
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


@contextmanager
def opened(paths: Sequence[Path]) -> Iterator[list[Mapping[str, NDArray[Any]]]]:
    """Open the files of tasks, whose arrays are read and checked one by one when they are asked for."""
    with ExitStack() as stack:
        yield [stack.enter_context(np.load(path, allow_pickle=False)) for path in paths]


def is_whole(path: Path) -> bool:
    """Return whether a file of arrays exists and has no damage."""
    try:
        with zipfile.ZipFile(path) as file:
            members = file.infolist()
            stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
            # A wrong length in the directory makes an entry part of the one before.
            hidden = any(ENTRY in member.extra + member.comment for member in members)
            return stored and not hidden and file.testzip() is None
    except DAMAGE:
        return False
