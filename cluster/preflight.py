"""What every actor proves before it gets work: same files, same versions, and a clock that agrees.

The controller writes a token into the run folder. Each actor reads it there, writes its own name beside it, and tells
which builds it finds in the store. A folder of the same path on another disk has neither token nor name.
"""

from __future__ import annotations

import hashlib
import platform
import secrets
import shutil
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Self

from musegnn.data_store import Store
from musegnn.data_store.atomic_files import write_file
from musegnn.errors import MuseGNNError, RunError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

FOLDER = "preflight"
CLOCK_SECONDS = 5.0
VISIBLE_SECONDS = 10.0
POLL_SECONDS = 0.1
PACKAGES = ("musegnn", "torch", "numpy", "numba")
"""Packages whose version may change a bit of the result, or what processes tell one another."""


@dataclass(frozen=True, slots=True)
class Question:
    """What an actor is asked: path of the run folder, token to find there, path of the store, names of datasets."""

    folder: str
    token: str
    store: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an actor found.

    Attributes
    ----------
    folder_error
        Reason why the run folder is not that of the controller; empty when it is.
    store
        Digest of the builds in the store, or the error in one line.
    clock
        Seconds since the epoch by the clock of its host.
    versions
        Version of Python and of packages, by name.
    """

    folder_error: str
    store: str
    clock: float
    versions: dict[str, str]


class Preflight:
    """Check of actors against the process of the controller, as a context manager that keeps the token in place."""

    def __init__(self, folder: Path, store: Path, names: Sequence[str]) -> None:
        self.question = Question(str(folder), secrets.token_hex(8), str(store), tuple(names))
        self._store, self._versions = _builds(str(store), tuple(names)), versions()

    def __enter__(self) -> Self:
        """Write the token."""
        folder = Path(self.question.folder) / FOLDER
        shutil.rmtree(folder, ignore_errors=True)
        write_file(folder / self.question.token, "")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Remove it."""
        shutil.rmtree(Path(self.question.folder) / FOLDER, ignore_errors=True)

    def check(self, evidence: Evidence, *, name: str, host: str, asked: float) -> MuseGNNError | None:
        """Return an error that names host and reason where an actor cannot take part.

        `name` is that of the actor, `asked` the time at which its host was asked for the evidence at the earliest,
        seconds since the epoch.
        """
        question, shared = self.question, "mount one shared folder under this path on all hosts"
        if evidence.folder_error:
            return RunError(f"{question.folder}: {evidence.folder_error}", code="E448", where=host, fix=shared)
        if not _appears(Path(question.folder) / FOLDER / name):
            msg = f"{question.folder}: what this host writes there is not seen by the command"
            return RunError(msg, code="E448", where=host, fix=shared)
        if evidence.store != self._store:
            seen = evidence.store if " " in evidence.store else "it holds other builds than the command sees"
            return RunError(f"{question.store}: {seen}", code="E448", where=host, fix=shared)
        for package, mine in self._versions.items():
            there = evidence.versions.get(package, "no version")
            if there != mine:
                msg = f"it has {package} {there}, the command {mine}"
                return RunError(msg, code="E446", where=host, fix="install the same versions on all hosts")
        off = max(asked - evidence.clock, evidence.clock - time.time())
        if off > CLOCK_SECONDS:
            msg = f"its clock differs by {off:.0f} s from that of the command"
            return RunError(msg, code="E446", where=host, fix="synchronise the clocks, as with chrony")
        return None


def gather_evidence(question: Question, name: str) -> Evidence:
    """Return what this process finds, and write the name of the actor beside the token."""
    folder, why = Path(question.folder) / FOLDER, ""
    if not _appears(folder / question.token):
        why = "this host does not see what the command has written there"
    else:
        try:
            write_file(folder / name, "")
        except (OSError, MuseGNNError) as error:
            why = f"this host cannot write there ({error})"
    return Evidence(why, _builds(question.store, question.names), time.time(), versions())


def versions() -> dict[str, str]:
    """Return the versions of Python and of packages that decide about bits."""
    found = {"Python": ".".join(platform.python_version_tuple()[:2])}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # as of a checkout on PYTHONPATH
            found[package] = "unknown"
    return found


def _appears(path: Path) -> bool:
    until = time.monotonic() + VISIBLE_SECONDS
    while not path.is_file():
        if time.monotonic() > until:
            return False
        list(path.parent.glob("*"))  # listing a folder makes a network file system look again
        time.sleep(POLL_SECONDS)
    return True


def _builds(path: str, names: Sequence[str]) -> str:
    """Return a digest of the builds of datasets in a store, or the error in one line."""
    try:
        store = Store.open(path)
        return hashlib.sha256(repr([store.build_of(name) for name in names]).encode()).hexdigest()
    except MuseGNNError as error:
        return error.message
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
