"""Errors that a user can act on: every message says what was expected, what came, and how to fix it.

This module imports the standard library alone, so that every other part may import it. What each code means is in
:mod:`musegnn.error_codes`.
"""

from __future__ import annotations


class MuseGNNError(Exception):
    """Base of all errors that are the user's to fix.

    Parameters
    ----------
    message, where
        What was expected and what came instead, in one sentence; the file, dataset or option that it is about.
    code
        Stable identifier such as ``"E203"``, explained in docs/errors.md.
    fix
        One action that resolves it.
    """

    def __init__(self, message: str, *, code: str, where: str = "", fix: str = "") -> None:
        self.message = message
        self.code = code
        self.where = where
        self.fix = fix
        super().__init__(self.line())

    def line(self) -> str:
        """Return the error as one line for the terminal, ``error[CODE] where: message. Fix: action.``."""
        where = f" {self.where}:" if self.where else ""
        fix = f" Fix: {self.fix.rstrip('.')}." if self.fix else ""
        return f"error[{self.code}]{where} {self.message.rstrip('.')}.{fix}".replace("\n", " ")

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by the arguments, so that the error survives a process boundary."""
        return _rebuild, (type(self), self.message, self.code, self.where, self.fix)


def _rebuild(cls: type[MuseGNNError], message: str, code: str, where: str, fix: str) -> MuseGNNError:
    return cls(message, code=code, where=where, fix=fix)


class ConfigError(MuseGNNError, ValueError):
    """The atlas file or an option is wrong."""


class InputError(MuseGNNError, ValueError):
    """A dataset cannot be used as it is."""


class StoreError(MuseGNNError, RuntimeError):
    """The store is damaged, written by a newer program, or holds something else."""


class StoreNotFoundError(StoreError, FileNotFoundError):
    """There is no store, or no such dataset in it."""

    __str__ = MuseGNNError.line


class WriteError(MuseGNNError, OSError):
    """A file cannot be written: the disk is full, or the place is not writable."""


class GraphError(MuseGNNError, ValueError):
    """A co-expression graph cannot be built, or not be read by this edge rule."""


class NoEdgesError(GraphError):
    """An edge rule leaves a graph without edges."""


class RunError(MuseGNNError, RuntimeError):
    """A run folder cannot be used, resumed or read."""


class CheckpointDamagedError(RunError):
    """A checkpoint is damaged or incomplete."""


class MissingDependencyError(MuseGNNError, ImportError):
    """An optional package is needed for what was asked."""


def version_fix(found: object, known: int) -> str:
    """Return the advice for data of a format version that this program, which reads version `known`, cannot read."""
    newer = not isinstance(found, int) or found > known
    return "update musegnn" if newer else "train again into another folder, or use the musegnn that wrote it"
