"""Pieces of a build that are computed once, kept in files and reused after a failure.

A stage of a build is a list of tasks. Each is a pure function of its arguments and of files of earlier stages, and
leaves one file of arrays; results are merged from the files in the order of the list. Where and in which order tasks
run therefore cannot change a bit, and a stage that was interrupted goes on with the tasks whose file is missing.
"""

from __future__ import annotations

import struct
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from musegnn.data_store.atomic_files import atomic_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

# What zipfile raises for a damaged archive, depending on where the damage is.
DAMAGE = (OSError, zipfile.BadZipFile, RuntimeError, ValueError, OverflowError, EOFError, struct.error)
ENTRY = b"PK\x01\x02"  # how an entry of a zip directory starts
T = TypeVar("T")


class Fields(Protocol):
    """A named tuple of arrays, numbers, texts and ``None``, as a file of a task holds it."""

    def _asdict(self) -> dict[str, Any]: ...  # values of any type


@dataclass(frozen=True, slots=True)
class Task:
    """One piece of work.

    Attributes
    ----------
    path
        File of the result, on storage that all workers share.
    function, arguments
        Computes the result; importable by name and picklable, so that they can travel to other processes.
    """

    path: Path
    function: Callable[..., Fields]
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
    """Run the tasks whose files are missing or damaged; `done` is called for every task."""
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
    """Compute and save the result of a task."""
    save(task.path, task.function(*task.arguments))


def save(path: Path, fields: Fields) -> None:
    """Write fields that are not ``None``, so that the file is whole whenever it has its name."""
    arrays = {name: values for name, values in fields._asdict().items() if values is not None}
    with atomic_file(path, parents=True) as aside, aside.open("wb") as file:
        np.savez(file, **arrays)


def load(path: Path, kind: Callable[..., T]) -> T:
    """Read what :func:`save` wrote of a named tuple; every field is checked against its CRC-32 on the way.

    Raises one of ``DAMAGE`` when the file is missing or damaged.
    """
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return kind(**{name: array if array.ndim else array.item() for name, array in arrays.items()})


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
