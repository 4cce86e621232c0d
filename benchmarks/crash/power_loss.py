"""Power failures, simulated: what is synchronised stays, and of the rest any part may be on disk.

A run of commits is recorded as the changes it makes to files and folders. A power failure after any of them leaves

* the content of every file that was synchronised, and of the others nothing, a part, zeros, or all of it;
* every entry of a folder that was there when the folder was last synchronised, and of the later changes to its
  entries, names and removals alike, any subset. An entry is lost with the folder that holds it.

This is harsher than file systems are: a rename between two folders may be seen in one of them alone.
"""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np

FOLDER = -1
GONE = 0


@dataclass
class Recording:
    """The changes below a folder, in order.

    Attributes
    ----------
    changes
        ``("entry", folder, name, inode)``, with the inode ``FOLDER`` for a folder and ``GONE`` for a removal;
        ``("sync", inode)``; ``("sync folder", folder)``; ``("promise", what)``.
    contents
        Content of every file, by inode.
    """

    root: Path
    changes: list[tuple[Any, ...]] = field(default_factory=list)
    contents: dict[int, bytes] = field(default_factory=dict)
    _inodes: dict[Path, int] = field(default_factory=dict)

    def promise(self, what: object) -> None:
        """Note that a call returned, so that what it wrote may not be lost any more."""
        self.changes.append(("promise", what))

    def synced(self, descriptor: int) -> None:
        """Note a synchronised file or folder."""
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if self.root not in [path, *path.parents]:
            return
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            self.changes.append(("sync folder", path))
            return
        if path not in self._inodes:
            inode = len(self.contents) + 1
            self.contents[inode] = path.read_bytes()
            self._set(path, inode)
        self.changes.append(("sync", self._inodes[path]))

    def made(self, path: Path) -> None:
        """Note a new folder."""
        self._set(path, FOLDER)

    def moved(self, source: Path, target: Path) -> None:
        """Note a rename."""
        self._set(target, self._inodes.pop(source))
        self._set(source, GONE)

    def linked(self, source: Path, target: Path) -> None:
        """Note a second name of a file."""
        self._set(target, self._inodes[source])

    def removed(self, path: Path) -> None:
        """Note a removed name."""
        if self._inodes.pop(path, None) is not None:
            self._set(path, GONE)

    def _set(self, path: Path, inode: int) -> None:
        if self.root in path.parents:
            if inode != GONE:
                self._inodes[path] = inode
            self.changes.append(("entry", path.parent, path.name, inode))


@contextmanager
def recorded(root: Path) -> Iterator[Recording]:
    """Record all changes below a folder while the context is open, by the system calls that make them."""
    recording = Recording(root)
    notes: dict[str, Callable[..., None]] = {
        "mkdir": lambda path, *_, **__: recording.made(Path(path)),
        "replace": lambda source, target: recording.moved(Path(source), Path(target)),
        "link": lambda source, target: recording.linked(Path(source), Path(target)),
        "unlink": lambda path: recording.removed(Path(path)),
        "fsync": recording.synced,
    }
    originals = {name: getattr(os, name) for name in notes}

    def wrapped(name: str) -> Callable[..., None]:
        def call(*args: Any, **kwargs: Any) -> None:  # those of the system call
            originals[name](*args, **kwargs)
            notes[name](*args, **kwargs)

        return call

    for name in notes:
        setattr(os, name, wrapped(name))
    try:
        yield recording
    finally:
        for name, original in originals.items():
            setattr(os, name, original)


def crash(recording: Recording, moment: int, rng: np.random.Generator, target: Path) -> list[object]:
    """Write what a power failure after so many changes may leave to a folder; return what was promised before."""
    changes = recording.changes[:moment]
    last_sync = {change[1]: k for k, change in enumerate(changes) if change[0] == "sync folder"}
    durable = {change[1] for change in changes if change[0] == "sync"}
    survival = rng.choice([0.0, 0.5, 1.0], p=[0.2, 0.6, 0.2])
    folders: dict[Path, dict[str, int]] = {}
    for k, change in enumerate(changes):
        if change[0] == "entry" and (k < last_sync.get(change[1], -1) or rng.random() < survival):
            folders.setdefault(change[1], {})[change[2]] = change[3]
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    _write(recording, folders, recording.root, target, durable, rng)
    return [change[1] for change in changes if change[0] == "promise"]


def _write(
    recording: Recording,
    folders: dict[Path, dict[str, int]],
    place: Path,
    target: Path,
    durable: set[int],
    rng: np.random.Generator,
) -> None:
    for name, inode in folders.get(place, {}).items():
        if inode == FOLDER:
            (target / name).mkdir()
            _write(recording, folders, place / name, target / name, durable, rng)
        elif inode != GONE:
            data = recording.contents[inode]
            if inode not in durable:
                kept = int(rng.choice([0, rng.integers(len(data) + 1), len(data)]))
                data = data[:kept] + (b"\0" * (len(data) - kept) if rng.random() < 0.3 else b"")
            (target / name).write_bytes(data)
