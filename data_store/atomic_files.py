"""Files that survive a power failure: written aside, synchronised, then given their name.

A file under its final name is always whole. A new directory entry is durable only after its directory is
synchronised, which :func:`sync_folders` does for all folders up to the root of the store.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from musegnn.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

TEMPORARY = "tmp"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def replace_file(root: Path, path: Path, data: bytes) -> None:
    """Write a file under its name in one step, replacing what is there.

    Parameters
    ----------
    root
        Root of the store; the file is first written below its ``tmp`` folder.
    path
        Final place, on the same file system. Its folder is made when needed.
    data
        The whole content.

    Raises
    ------
    StoreError
        E140 when the disk or a quota is full, E292 when the place is not writable. Nothing is left behind.
    """
    with _written_aside(root, path, data) as aside:
        aside.replace(path)


def put_if_absent(root: Path, path: Path, data: bytes) -> bool:
    """Create a file durably unless one of this name exists; of several writers exactly one succeeds.

    Returns
    -------
    bool
        Whether the file was created by this call.

    Raises
    ------
    StoreError
        E140 or E292, as :func:`replace_file`.
    """
    with _written_aside(root, path, data) as aside:
        try:
            os.link(aside, path)
        except FileExistsError:
            return False
    sync_folders(root, [path.parent])
    return True


def sync_folders(root: Path, folders: Iterable[Path]) -> None:
    """Make the entries of these folders, and of all folders above them up to `root`, durable."""
    todo = {root}
    for folder in folders:
        todo.update([folder, *(parent for parent in folder.parents if root in parent.parents)])
    for folder in sorted(todo):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def one_writer(root: Path, name: str) -> Iterator[None]:
    """Let one process or thread at a time write under this name; a killed holder frees it.

    Raises
    ------
    StoreError
        E140 or E292, as :func:`replace_file`.
    """
    path = root / TEMPORARY / f"{name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise _explain(error, path, 0) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def remove_leftovers(root: Path) -> None:
    """Remove files that a process of this host left unfinished and that no longer runs."""
    for path in (root / TEMPORARY).glob(f"{_host()}.*.partial"):
        pid = path.name.removeprefix(_host() + ".").split(".", 1)[0]
        if pid.isdigit() and not _runs(int(pid)):
            path.unlink(missing_ok=True)


@contextmanager
def _written_aside(root: Path, path: Path, data: bytes) -> Iterator[Path]:
    aside = root / TEMPORARY / f"{_host()}.{os.getpid()}.{secrets.token_hex(8)}.partial"
    try:
        aside.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield aside
    except OSError as error:
        raise _explain(error, path, len(data)) from error
    finally:
        with suppress(OSError):  # gone already, or its folder could not be made, which was reported
            aside.unlink()


def _explain(error: OSError, path: Path, size: int) -> StoreError:
    if error.errno in FULL:
        msg = f"no space for {path.name} ({size} bytes)"
        return StoreError(msg, code="E140", where=str(path.parent), fix="free space and run the same command again")
    if error.errno in FORBIDDEN:
        msg = f"cannot write {path.name}: {error.strerror}"
        return StoreError(msg, code="E292", where=str(path.parent), fix="choose a folder that is writable")
    msg = f"cannot write {path.name}: {error.strerror or error}"
    return StoreError(msg, code="E292", where=str(path.parent), fix="check the disk and the folder")


def _host() -> str:
    return "".join(c if c.isalnum() else "-" for c in socket.gethostname()) or "host"


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
