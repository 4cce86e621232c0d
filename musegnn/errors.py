"""Errors that a user can act on: every message says what was expected, what came, and how to fix it.

::

    MuseGNNError
    ├── ConfigError (ValueError)          the atlas file or an option is wrong
    ├── InputError (ValueError)           a dataset cannot be used as it is
    ├── StoreError (RuntimeError)         the store is damaged, too new, or holds something else
    │   └── StoreNotFoundError (FileNotFoundError)
    ├── GraphError (ValueError)           a co-expression graph cannot be built or read by this rule
    ├── RunError (RuntimeError)           a run folder cannot be used, resumed or read
    └── MissingDependencyError (ImportError)   an optional package is needed

This module imports the standard library alone, so that every other part may import it.
"""

from __future__ import annotations


class MuseGNNError(Exception):
    """Base of all errors that are the user's to fix.

    Parameters
    ----------
    message
        What was expected and what came instead, in one sentence.
    code
        Stable identifier such as ``"E203"`` for scripts and documentation.
    where
        File, dataset or option that the error is about.
    fix
        One action that resolves it.
    """

    kind = "error"

    def __init__(self, message: str, *, code: str = "E000", where: str = "", fix: str = "") -> None:
        self.message = message
        self.code = code
        self.where = where
        self.fix = fix
        super().__init__(self.line())

    def line(self) -> str:
        """Format the error as one line, ``error[CODE] where: message. Fix: action.``, for the terminal."""
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

    kind = "config"


class InputError(MuseGNNError, ValueError):
    """A dataset cannot be used as it is."""

    kind = "input"


class StoreError(MuseGNNError, RuntimeError):
    """The store is damaged, written by a newer program, or holds something else."""

    kind = "store"


class StoreNotFoundError(StoreError, FileNotFoundError):
    """There is no store, or no such dataset in it."""

    kind = "store_not_found"

    __str__ = MuseGNNError.line


class GraphError(MuseGNNError, ValueError):
    """A co-expression graph cannot be built, or not be read by this edge rule."""

    kind = "graph"


class RunError(MuseGNNError, RuntimeError):
    """A run folder cannot be used, resumed or read."""

    kind = "run"


class MissingDependencyError(MuseGNNError, ImportError):
    """An optional package is needed for what was asked."""

    kind = "missing_dependency"
