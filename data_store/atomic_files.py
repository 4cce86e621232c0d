"""Files that survive a power failure: written aside, synchronised, then given their name.

A file under its final name is always whole. A new directory entry is durable only after its directory is synchronised:
:func:`atomic_file` and :func:`write_file` do so at once, the store at the end of a build, by :func:`sync_folders`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import socket
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from musegnn.errors import MuseGNNError, WriteError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

TEMPORARY = "tmp"
PARTIAL = ".partial"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def atomic_file(path: Path | str, *, parents: bool = False) -> Iterator[Path]:
    """Write a file by its own writer, in one step and durably.

    Parameters
    ----------
    path
        The file to write or replace.
    parents
        Whether to make missing folders above it.

    Yields
    ------
    pathlib.Path
        A name in the same folder to write to. When the block raises, `path` stays as it was and nothing is left.

    Raises
    ------
    WriteError
        E140 when the disk or a quota is full, E292 when the place is not writable.
    """
    path = Path(path)
    made = [folder for folder in path.parents if not folder.exists()]
    with _aside(path, path.parent, parents=parents) as aside:
        yield aside
        _sync(aside)
        aside.replace(path)
        for folder in {path.parent, *(folder.parent for folder in made)}:
            _sync(folder)


def write_file(path: Path | str, data: bytes | str) -> None:
    """Write bytes, or text as UTF-8, in one step and durably, and make missing folders; see :func:`atomic_file`."""
    with atomic_file(path, parents=True) as aside:
        aside.write_bytes(data.encode() if isinstance(data, str) else data)


def replace_file(root: Path, path: Path, data: bytes) -> None:
    """Write a file of the store below `root` in one step; :func:`sync_folders` makes its name durable."""
    with _written(root, path, data) as aside:
        aside.replace(path)


def put_if_absent(root: Path, path: Path, data: bytes) -> bool:
    """Create a file durably unless one of this name exists; of several writers exactly one succeeds.

    Returns
    -------
    bool
        Whether the file was created by this call.
    """
    with _written(root, path, data) as aside:
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
        _sync(folder)


@contextmanager
def one_writer(root: Path, name: str) -> Iterator[None]:
    """Let one process or thread at a time write under this name; a killed holder frees it."""
    path = root / TEMPORARY / f"{name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise _explain(error, path) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def remove_leftovers(root: Path) -> None:
    """Remove files that a process of this host left unfinished and that no longer runs."""
    for path in (root / TEMPORARY).glob(f"{_host()}.*{PARTIAL}"):
        pid = path.name.removeprefix(_host() + ".").split(".", 1)[0]
        if pid.isdigit() and not _runs(int(pid)):
            path.unlink(missing_ok=True)


@contextmanager
def _written(root: Path, path: Path, data: bytes) -> Iterator[Path]:
    with _aside(path, root / TEMPORARY, size=len(data)) as aside:
        with aside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield aside


@contextmanager
def _aside(path: Path, folder: Path, *, parents: bool = True, size: int | None = None) -> Iterator[Path]:
    """Yield a new name in `folder` for what becomes `path`, remove it in the end, and explain what fails."""
    aside = folder / f"{_host()}.{os.getpid()}.{secrets.token_hex(8)}{PARTIAL}"
    try:
        for parent in {folder, path.parent} if parents else ():
            parent.mkdir(parents=True, exist_ok=True)
        yield aside
    except MuseGNNError:
        raise
    except OSError as error:
        raise _explain(error, path, size) from error
    finally:
        with suppress(OSError):  # gone already, or its folder could not be made, which was reported
            aside.unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explain(error: OSError, path: Path, size: int | None = None) -> WriteError:
    where = str(path.parent)
    if error.errno in FULL:
        msg = f"no space for {path.name}" + (f" ({size} bytes)" if size else "")
        return WriteError(msg, code="E140", where=where, fix="free space and run the same command again")
    msg = f"cannot write {path.name}: {error.strerror or error}"
    fix = "choose a folder that is writable" if error.errno in FORBIDDEN else "check the disk and the folder"
    return WriteError(msg, code="E292", where=where, fix=fix)


def _host() -> str:
    return "".join(c if c.isalnum() else "-" for c in socket.gethostname()) or "host"


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs, as another user
        pass
    return True
